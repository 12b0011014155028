"""A task over many items, one by one or in a provider's batches, with a journal that survives a crash."""
