"""Tokens guessed ahead: when that pays, and who guesses."""
