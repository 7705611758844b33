"""What index families share: containers, quantizers, codebooks, packed codes, and the transaction that writes back."""
