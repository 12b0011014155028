"""Exams of assistants: questions derived from the documents themselves, and how a system did on them."""
