"""A run's folder: its files, its records, what made it."""
