"""Answering: candidates, events and health over HTTP. Imports index, never training."""
