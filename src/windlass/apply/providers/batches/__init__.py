"""Providers' batch APIs: many requests at once, later, and often at half the price."""
