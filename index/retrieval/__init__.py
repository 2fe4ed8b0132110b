"""From a history to candidates: encode, search, filter, merge, explain. No file access."""
