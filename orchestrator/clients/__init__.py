"""Ways to a testbed."""
