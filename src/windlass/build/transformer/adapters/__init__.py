"""Adapters of a transformer as values, and their files as PEFT writes them; training and serving both use these."""
