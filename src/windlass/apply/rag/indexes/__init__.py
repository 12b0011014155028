"""Where passages are kept and searched: one embedded index, PostgreSQL, Qdrant, behind one protocol."""
