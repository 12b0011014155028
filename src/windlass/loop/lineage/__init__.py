"""Where something came from: the graph of an answer or an artifact, and the training text behind a token."""
