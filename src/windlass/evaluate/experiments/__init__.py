"""What variants did with the items of a dataset, compared item by item, with a verdict that can be kept."""
