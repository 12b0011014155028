"""Model providers behind `ChatModel` and `Embedder`."""
