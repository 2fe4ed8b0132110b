"""Approximate nearest neighbours: the index over item vectors, its kinds, and its tuning."""
