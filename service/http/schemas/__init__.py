"""Request and response models of the endpoints."""
