"""Serving: embedder, inference engine and the OpenAI-compatible server."""
