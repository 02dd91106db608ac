"""Finds wrong joules in results that others, or older tools, have left."""
