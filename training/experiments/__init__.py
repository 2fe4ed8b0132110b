"""Comparisons of models and reruns of the papers' tables."""
