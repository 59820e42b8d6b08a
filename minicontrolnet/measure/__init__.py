"""Scores against the exact answers, how certain they are, and what a step costs. Imports the core alone."""
