"""The grounded assistant of a workspace: what it is made of, how it is put together, measured and calibrated."""
