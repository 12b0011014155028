"""Variants on live traffic: shares that stick to users, looks that may be taken at any time, and the way back."""
