"""Figures, drawings and photographs as conditions, and the board. Imports the core and measure/."""
