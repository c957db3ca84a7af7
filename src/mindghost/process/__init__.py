"""This process: its outputs, its limits, what started it."""
