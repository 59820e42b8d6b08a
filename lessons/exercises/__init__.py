"""The exercises of the lessons: python lessons/exercises"""
