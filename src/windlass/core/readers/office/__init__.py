"""Readers of what Word, PowerPoint and Excel write."""
