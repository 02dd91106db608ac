"""Answers judged by a language model that is told the gold label. Its energy is never part of a trial."""
