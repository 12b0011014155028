"""What one request, and all of them together, may take of the server."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limits:
    body_bytes: int = 4 << 20
    file_bytes: int = 200 << 20
    """A file for a batch."""
    body_seconds: float = 30.0
    """Time for a client to send its body, so that a slow one does not hold a connection for ever."""
    request_seconds: float = 600.0
    """Time from the request to the last token."""
    messages: int = 1000
    texts: int = 2048
    """Texts of one embeddings request, as in OpenAI's service."""
    prompts: int = 128
    """Prompts of one completions request."""
    running: int = 64
    """Answers being written at once: the threads that wait for the engine, which decides how many share a batch."""
    waiting: int = 256
    """Answers in line behind those; further ones are told to come back (429)."""
