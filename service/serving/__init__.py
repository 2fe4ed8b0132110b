"""The process that answers: batching, release loading, workers."""
