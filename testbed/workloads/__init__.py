"""What a trial asks a model."""
