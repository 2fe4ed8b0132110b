"""HTTP: middleware, routes, request and response models."""
