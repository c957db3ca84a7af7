"""Ranks: how processes share a run."""
