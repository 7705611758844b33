"""One index family a file, FastScan forms beside their plain form."""
