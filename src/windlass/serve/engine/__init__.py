"""Local inference: a decoder of `build.transformer` that writes for many at once, behind the `ChatModel` protocol.

request.py    what an engine is asked, and how the one who asked follows it
engine.py     the thread that computes, between those who ask and the model
scheduler.py  who reads how many tokens in the next step, and who is set aside when memory runs out
kv.py         memory of what was read: a slab for each running sequence, blocks for others that begin alike
runner.py     one step of the model
reproducibility.py  reproducible mode is proven before it is promised
memory.py     whether a model fits, said before it is loaded
source.py     encoder-decoders behind the same questions

arithmetic/   matrices in float32, bfloat16, 8 and 4 bits; attention over many texts; native code
sampling/     logits -> the next token of every request in a batch, reproducible by seed
speculation/  tokens guessed ahead, as long as it pays
constraints/  what an answer must obey: schemas, expressions, choices, grammars
adapters/     many LoRA adapters on one base, in one batch
scoring/      how likely texts are; what they share is read once

prompt.py     messages -> tokens: the model's chat template, or plain continuation for a base model
dialect/      tool calls and reasoning, as the chat template writes them
text.py       tokens -> text: whole characters only, stop strings across token boundaries
tokens.py     what is known of the tokens: their texts, bytes and grammars
wishes.py     a chat request, in the words of the wire -> what an engine is asked
voice.py      who answers: a model as it is, or with an adapter
answer.py     one request on its way, from what was asked to the deltas of the answer, recorded
local.py      `LocalModel`, which puts these together; adapted.py: the same model with an adapter
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
