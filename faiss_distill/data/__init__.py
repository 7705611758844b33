"""What a user passes; it knows no index and no options."""
