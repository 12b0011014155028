"""Local inference: a decoder of `build.transformer`, driven one token at a time, behind the `ChatModel` protocol.

prompt.py    messages -> tokens: the model's chat template, or plain continuation for a base model
sampling.py  logits -> the next token: greedy, temperature, top-p, reproducible by seed
text.py      tokens -> text: whole characters only, stop strings across token boundaries
turns.py     whose step is next when several requests share the processor
local.py     `LocalModel`, which puts these together and records what it did
"""

from __future__ import annotations

from windlass.core.errors import MissingExtra

try:
    from windlass.serve.engine.local import LocalModel
except ImportError as missing:
    if (missing.name or "").partition(".")[0] == "windlass":
        raise  # a fault of ours, not an absent dependency
    raise MissingExtra("Running a local model", "build") from missing

__all__ = ["LocalModel"]
