"""From a log file to training examples and splits."""
