"""What crosses the network between the nodes, and nothing else."""
