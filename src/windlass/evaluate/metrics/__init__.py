"""Metrics as pure functions: arrays in, one value per item out. Means and intervals are made in `statistics`."""
