"""What the endpoints take and give."""
