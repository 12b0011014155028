"""The tokens on disk, and the examples that each objective makes of them: windows, hidden tokens, gaps, pairs."""
