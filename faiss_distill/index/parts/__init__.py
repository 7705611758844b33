"""What index families are made of."""
