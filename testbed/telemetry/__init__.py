"""What a testbed tells of the running trial while somebody listens."""
