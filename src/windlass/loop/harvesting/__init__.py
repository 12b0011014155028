"""From traces and what people said of them to datasets that something can learn from."""
