"""Learning: profiles become device models, device models environments, and these a policy that the testbed can load."""
