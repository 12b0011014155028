"""Retrieval-augmented generation: cut documents into passages, index them, find, quote, or say that it is not there."""
