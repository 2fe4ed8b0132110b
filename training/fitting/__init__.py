"""Training a model on a prepared log: the loop, checkpoints, warm starts, and writing the draft."""
