"""Runs one trial at a time, and measures it."""
