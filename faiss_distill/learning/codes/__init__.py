"""Which code a vector gets."""
