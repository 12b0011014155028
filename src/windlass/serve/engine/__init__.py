"""Local inference: a decoder of `build.transformer`, driven one token at a time, behind the `ChatModel` protocol.

prompt.py    messages -> tokens: the model's chat template, or plain continuation for a base model
settings.py  what a request may say about its sampling, checked once
sampling.py  logits -> the next token of every request in a batch, reproducible by seed
drawing.py   temperature, top-k, top-p, min-p, typical: one draw for each row
logprobs.py  the model's own log-probabilities, with alternatives
speculation.py  when guessing tokens ahead is worth it; guessing.py  who guesses: earlier text, or a draft model
beam.py      the likeliest whole answers, several beginnings at a time
text.py      tokens -> text: whole characters only, stop strings across token boundaries
turns.py     whose step is next when several requests share the processor
scorer.py    how likely texts are; what they share is read once (trie.py)
lora.py      many adapters on one base, in one batch; lora_files.py reads them from PEFT folders
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
