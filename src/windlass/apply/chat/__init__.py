"""Talking to a model.

conversation.py   what was said so far and how to go on, kept in a file of the workspace
terminal.py       a conversation in the terminal
"""
