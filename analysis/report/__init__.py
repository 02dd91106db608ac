"""One page that says what an experiment found, and what may be wrong with it."""
