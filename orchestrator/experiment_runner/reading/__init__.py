"""What runs in the process that reads a configuration of Experiment Runner: standard library only."""
