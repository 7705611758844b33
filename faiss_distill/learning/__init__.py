"""What is learned, in torch: no index object and no file."""
