"""A training state on disk: whole or not at all, written beside the loop."""
