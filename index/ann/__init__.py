"""Approximate nearest neighbours: kinds of index over item vectors, building, reading, tuning."""
