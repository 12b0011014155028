"""Variants of a task over the items of a dataset, in a workspace: asked, scored, stored, compared."""
