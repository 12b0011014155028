"""The form of answers: from a Python type to what a provider takes, and back, also half-written."""
