"""Metrics and protocols: how good a model is."""
