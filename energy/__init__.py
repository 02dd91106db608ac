"""From samples to joules: pure functions."""
