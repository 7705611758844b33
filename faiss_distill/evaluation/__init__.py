"""What a real faiss search finds, and what it costs."""
