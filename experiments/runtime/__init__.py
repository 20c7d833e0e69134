"""Machinery that every experiment shares; it knows no paper, no data set, no generator."""
