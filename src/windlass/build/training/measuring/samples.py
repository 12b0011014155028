"""What a model says while it is still learning: a few lines that show more than a loss does."""

from __future__ import annotations

from typing import Any

import torch

from windlass.build.training.data.batches import IGNORE, Batch, Examples
from windlass.build.training.data.shard import Shard
from windlass.build.training.objectives import Arithmetic, needed
from windlass.build.transformer.decoder import Decoder
from windlass.build.transformer.encoder import Encoder
from windlass.build.transformer.encoder_decoder import EncoderDecoder
from windlass.build.transformer.generating import generate
from windlass.build.transformer.model import Model

_PROMPT = 24
_WRITTEN = 40
_TEMPERATURE = 0.7
_GUESSES = 8


@torch.inference_mode()
def sample(
    model: Model, tokenizer: Any, shard: Shard, examples: Examples, math: Arithmetic, seed: int = 0
) -> str | None:
    """One line: a decoder goes on from the beginning of the held-out text, the others fill its gaps.

    None for an encoder trained on pairs, which says nothing. Compiled blocks run uncompiled here, since each length
    that they meet would be compiled anew.
    """
    with torch.compiler.set_stance("force_eager"):
        if isinstance(model, Decoder):
            return _continued(model, tokenizer, shard, seed)
        batch = examples.batch([(0, 0)]).to(model.embedding.device)
        if isinstance(model, EncoderDecoder):
            return _filled(model, tokenizer, batch, shard.separator)
        return None if batch.targets_BT.shape[1] == 1 else _guessed(model, tokenizer, batch, math)


def _continued(model: Decoder, tokenizer: Any, shard: Shard, seed: int) -> str:
    generator = torch.Generator().manual_seed(seed)
    room = model.config.context
    device = model.embedding.device
    prompt = torch.tensor([int(token) for token in shard.tokens[: min(_PROMPT, room // 2)]], device=device)
    cache = model.new_cache(batch=1)
    logits_BV = model.prefill(prompt[None], cache)
    written: list[int] = []
    for _ in range(min(_WRITTEN, room - len(prompt) - 1)):
        odds_V = (logits_BV[0].float() / _TEMPERATURE).softmax(-1).cpu()
        token = int(torch.multinomial(odds_V, 1, generator=generator))
        if token == shard.separator:
            break
        written.append(token)
        logits_BV = model.decode_step(torch.tensor([token], device=device), cache)
    return f"{_text(tokenizer, prompt[1:].tolist())} [...] {_text(tokenizer, written)}"


def _guessed(model: Encoder, tokenizer: Any, batch: Batch, math: Arithmetic) -> str:
    """The first hidden tokens, each beside the model's guess."""
    x_BTC = model.hidden(batch.inputs_BT, documents_BT=batch.documents_BT, dtype=math.dtype)
    places = torch.nonzero(batch.targets_BT[0] != IGNORE).flatten()[:_GUESSES]
    guesses = model.logits(x_BTC[0, places]).argmax(-1).tolist()
    truths = batch.targets_BT[0, places].tolist()
    pairs = (f"{_text(tokenizer, [truth])!r} as {_text(tokenizer, [guess])!r}" for truth, guess in zip(truths, guesses))
    return "reads hidden " + ", ".join(pairs)


def _filled(model: EncoderDecoder, tokenizer: Any, batch: Batch, end: int) -> str:
    """What stood in the gaps of the first text, and what the model writes into them, the likeliest token each time."""
    source_S, truth_T = needed(batch.source_BS)[0], batch.targets_BT[0]
    if batch.documents_BT is not None and batch.source_documents_BS is not None:
        first = batch.documents_BT[0, 0]
        source_S, truth_T = source_S[batch.source_documents_BS[0] == first], truth_T[batch.documents_BT[0] == first]
    truth_T = truth_T[:_WRITTEN]
    (written,) = generate(model, source_S[None], start=int(batch.inputs_BT[0, 0]), end=end, most=len(truth_T))
    return f"fills {_text(tokenizer, truth_T.tolist())} with {_text(tokenizer, written)}"


def _text(tokenizer: Any, ids: list[int]) -> str:
    return str(tokenizer.decode(ids, skip_special_tokens=False)).replace("\n", "\\n")
