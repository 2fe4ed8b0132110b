"""What is kept in Redis: histories, events, availability, new items."""
