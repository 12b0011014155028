"""The user's perspective: providers, retrieval, the grounded assistant. Never imports torch."""
