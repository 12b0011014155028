"""What stands before an embedder or behind it: a cache of vectors, a learned correction, a cut."""
