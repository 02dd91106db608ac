"""From an answer in free text to a label, and from labels to a score: pure functions."""
