"""From rows as people keep them to what an objective reads."""
