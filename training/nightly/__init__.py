"""The nightly run: train on new events, compare with the live release, publish or reject."""
