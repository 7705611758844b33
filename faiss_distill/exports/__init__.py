"""What was learned, in the layouts of other libraries, one a file."""
