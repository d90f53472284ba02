"""What a model does with its tensors, written down by running it once."""
