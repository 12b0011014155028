"""Judges at work in a workspace: asked, recorded as scores, calibrated against people, compared."""
