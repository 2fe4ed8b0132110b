"""What is trained: item table, encoder, negatives and losses."""
