"""From a log to a draft: read, split, fit, evaluate."""
