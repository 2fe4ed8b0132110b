"""HTTP: middleware, routes, endpoints, request and response models."""
