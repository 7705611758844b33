"""Bridges to other libraries, one a file; each imports its library only when it is used."""
