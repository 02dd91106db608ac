"""What `init_env.sh` calls: downloads that can be resumed, and waiting for the service."""
