"""The endpoints: what each does with a request that is already valid."""
