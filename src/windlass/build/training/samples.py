"""What a model says while it is still learning: a few lines that show more than a loss does."""

from __future__ import annotations

from typing import Any

import torch

from windlass.build.training.batches import IGNORE, Batch, Examples
from windlass.build.training.objectives import Arithmetic
from windlass.build.training.shard import Shard
from windlass.build.transformer.decoder import Decoder
from windlass.build.transformer.encoder import Encoder
from windlass.build.transformer.encoder_decoder import EncoderDecoder
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
        return None if batch.targets_BT.shape[1] == 1 else _filled(model, tokenizer, batch, math)


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


def _filled(model: Encoder | EncoderDecoder, tokenizer: Any, batch: Batch, math: Arithmetic) -> str:
    """The first hidden tokens, each beside the model's guess."""
    if isinstance(model, Encoder):
        x_BTC = model.hidden(batch.inputs_BT, documents_BT=batch.documents_BT, dtype=math.dtype)
    else:
        assert batch.source_BS is not None
        x_BTC = model.hidden(
            batch.source_BS,
            batch.inputs_BT,
            source_documents_BS=batch.source_documents_BS,
            target_documents_BT=batch.documents_BT,
            dtype=math.dtype,
        )
    places = torch.nonzero(batch.targets_BT[0] != IGNORE).flatten()[:_GUESSES]
    guesses = model.logits(x_BTC[0, places]).argmax(-1).tolist()
    truths = batch.targets_BT[0, places].tolist()
    pairs = (f"{_text(tokenizer, [truth])!r} as {_text(tokenizer, [guess])!r}" for truth, guess in zip(truths, guesses))
    return "reads hidden " + ", ".join(pairs)


def _text(tokenizer: Any, ids: list[int]) -> str:
    return str(tokenizer.decode(ids, skip_special_tokens=False)).replace("\n", "\\n")
