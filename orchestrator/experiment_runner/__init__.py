"""GreenLab's Experiment Runner, both ways: its configurations are planned and run here, its half-done campaigns are
continued, results are written in its layout, and its runs can be delegated to a testbed.

Read from its public source (github.com/S2-group/experiment-runner); nothing of it is copied or imported.
"""
