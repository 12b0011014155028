"""Writing with an encoder-decoder: the likeliest token each time, or one drawn at a temperature."""

from __future__ import annotations

import torch
from torch import Tensor

from windlass.build.transformer.encoder_decoder import EncoderDecoder
from windlass.core.errors import InputError


@torch.inference_mode()
def generate(
    model: EncoderDecoder,
    source_BS: Tensor,
    *,
    start: int,
    end: int,
    most: int,
    source_documents_BS: Tensor | None = None,
    temperature: float = 0.0,
    generator: torch.Generator | None = None,
) -> list[list[int]]:
    """What the model writes for each source: at most `most` tokens, without `start`, which every target begins with,
    and without `end`.

    `source_documents_BS`: 0, and -1 where a source is padded. `temperature` 0 is greedy; above it, draws come from
    `generator`, so the same state gives the same texts. Raises `InputError` when `most` does not fit the model.
    """
    if not 1 <= most <= model.config.context:
        raise InputError(
            f"{most} tokens are to be written, but the model writes 1 to {model.config.context}.", "Change `most`."
        )
    if temperature < 0:
        raise InputError(f"temperature is {temperature}, but must be at least 0.")
    rows = len(source_BS)
    memory = model.remember(source_BS, source_documents_BS=source_documents_BS)
    cache = model.new_cache(batch=rows, capacity=most)
    token_B = torch.full((rows,), start, device=source_BS.device)
    ended_B = torch.zeros(rows, dtype=torch.bool, device=source_BS.device)
    written: list[Tensor] = []
    while len(written) < most and not ended_B.all():
        token_B = _choose(model.decode_step(token_B, memory, cache), temperature, generator)
        written.append(token_B)
        ended_B = ended_B | (token_B == end)
    texts: list[list[int]] = torch.stack(written, dim=1).tolist()
    return [text[: text.index(end)] if end in text else text for text in texts]


def _choose(logits_BV: Tensor, temperature: float, generator: torch.Generator | None) -> Tensor:
    if temperature == 0:
        return logits_BV.argmax(-1)
    odds_BV = (logits_BV.double() / temperature).softmax(-1)
    return torch.multinomial(odds_BV, 1, generator=generator)[:, 0]
