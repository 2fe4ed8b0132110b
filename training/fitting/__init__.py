"""From examples to a draft: the training loop, checkpoints, warm starts."""
