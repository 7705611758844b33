"""faiss objects in, arrays out, and back."""
