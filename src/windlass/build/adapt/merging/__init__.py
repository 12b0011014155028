"""Several models of one architecture as one, by their weights alone."""
