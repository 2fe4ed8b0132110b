"""The endpoints. Each gets a request that is already authorized and validated."""
