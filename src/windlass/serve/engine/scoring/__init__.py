"""How likely texts are; what they share is read once."""
