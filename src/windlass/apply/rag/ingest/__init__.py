"""Bringing documents into a living index, and keeping it at what they say now."""
