"""From nothing to a tuned index."""
