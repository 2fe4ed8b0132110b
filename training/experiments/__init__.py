"""Comparisons of models on one log, and reruns of the tables and figures of the Re4 paper."""
