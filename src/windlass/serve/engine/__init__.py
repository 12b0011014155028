"""Local inference: a decoder of `build.transformer` that writes for many at once, behind the `ChatModel` protocol.

request.py   what an engine is asked, and how the one who asked follows it
engine.py    the thread that computes, between those who ask and the model
scheduler.py who reads how many tokens in the next step, and who is set aside when memory runs out
kv.py        memory of what was read: a slab for each running sequence, blocks for others that begin alike
runner.py    one step of the model
memory.py    whether a model fits, said before it is loaded
linears.py   the arithmetic of matrices: float32, bfloat16, 8 and 4 bits

prompt.py    messages -> tokens: the model's chat template, or plain continuation for a base model
settings.py  what a request may say about its sampling, checked once
sampling.py  logits -> the next token of every request in a batch, reproducible by seed
drawing.py   temperature, top-k, top-p, min-p, typical: one draw for each row
logprobs.py  the model's own log-probabilities, with alternatives
speculation.py  when guessing tokens ahead is worth it; guessing.py  who guesses: earlier text, or a draft model
beam.py      the likeliest whole answers, several beginnings at a time
text.py      tokens -> text: whole characters only, stop strings across token boundaries
constraint.py  what an answer must obey; grammars.py makes it of schemas, expressions, choices and grammars
scorer.py    how likely texts are; what they share is read once (trie.py)
lora.py      many adapters on one base, in one batch; lora_files.py reads them from PEFT folders
wishes.py    a chat request, in the words of the wire -> what an engine is asked
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
