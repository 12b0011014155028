"""What a model may be tuned to do, one objective a file."""
