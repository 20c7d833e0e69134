"""Steering: exact control of a generator by its own geometry."""
