"""Several devices in one trial, each with a process and an engine of its own."""
