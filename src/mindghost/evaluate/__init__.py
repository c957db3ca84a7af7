"""Evaluation: counts, metrics, reports."""
