"""The embedded index: a folder with one SQLite file and one file of vectors, written by one process, read by many."""
