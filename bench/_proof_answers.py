"""What a model says and how likely it holds what should be said, for the proofs of small decoders.

Answers are written by the serving engine, greedily, many side by side; losses are computed by the training code, so
that both halves of windlass have to agree on how a conversation is written.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from bench._proof_data import Row
from numpy.typing import NDArray

from windlass.build.adapt.data.conversations import ConversationEncoder, Encoded
from windlass.build.adapt.data.formats import conversation_of
from windlass.build.adapt.data.rows import Row as ReadRow
from windlass.build.adapt.data.templates import named_template
from windlass.build.tokenizer import load_specials, load_tokenizer
from windlass.build.transformer.decoder import Decoder
from windlass.build.transformer.hf import load_model
from windlass.core.values import ChatRequest, ChatResponse, Message, ToolSpec
from windlass.serve.engine.local import LocalModel

AT_ONCE = 32
Floats = NDArray[np.float64]


def answers(folder: Path, requests: Sequence[ChatRequest]) -> list[ChatResponse]:
    """Of the model in the folder, in the order of the requests."""
    model = LocalModel.load(folder, max_batch=AT_ONCE)
    try:
        with ThreadPoolExecutor(AT_ONCE) as pool:
            return list(pool.map(model.complete, requests))
    finally:
        model.close()


def request(row: Row, most: int, **beyond: Any) -> ChatRequest:
    """What a row asks, by the chat template; `most` tokens of answer."""
    asked = row["prompt"]
    turns = [{"role": "user", "content": asked}] if isinstance(asked, str) else asked
    tools = tuple(
        ToolSpec(f["name"], f["description"], f["parameters"])
        for f in (tool["function"] for tool in row.get("tools", ()))
    )
    messages = tuple(Message(turn["role"], turn["content"]) for turn in turns)
    return ChatRequest(messages, temperature=0.0, max_tokens=most, tools=tools, **beyond)


def encoder_of(folder: Path, template: str = "chatml") -> Callable[[Row], Encoded]:
    """Rows with a `prompt` and its `completion` as tokens, as tuning encodes them."""
    tokenizer, specials = load_tokenizer(folder), load_specials(folder)
    tokenizer.encode_special_tokens = False  # a template writes special tokens, and means them
    encoder = ConversationEncoder(tokenizer, named_template(template, folder, tokenizer, specials), end=specials.eos)
    return lambda row: encoder.encode(conversation_of(ReadRow("row", row)))


@torch.inference_mode()
def losses(folder: Path, rows: Sequence[Encoded], at_once: int = 16) -> tuple[Floats, Floats]:
    """Nats of what is learned of each row, and how many tokens that is."""
    model = load_model(folder)
    assert isinstance(model, Decoder)
    model.eval()
    nats, tokens = np.zeros(len(rows)), np.array([float(row.learned[1:].sum()) for row in rows])
    order = sorted(range(len(rows)), key=lambda number: len(rows[number]))
    for begin in range(0, len(order), at_once):
        numbers = order[begin : begin + at_once]
        longest = max(len(rows[number]) for number in numbers)
        ids_BT = torch.zeros(len(numbers), longest, dtype=torch.int64)
        for place, number in enumerate(numbers):
            ids_BT[place, : len(rows[number])] = torch.from_numpy(rows[number].tokens)
        logits_BTV = model(ids_BT[:, :-1]).float()  # what stands behind a row is not seen by it
        nats_BT = F.cross_entropy(logits_BTV.transpose(1, 2), ids_BT[:, 1:], reduction="none").double().numpy()
        for place, number in enumerate(numbers):
            row = rows[number]
            nats[number] = nats_BT[place, : len(row) - 1][row.learned[1:]].sum()
    return nats, tokens


def written(folder: Path, found: Sequence[Any], name: str) -> Path:
    """Rows as a file of JSON lines."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.jsonl"
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in found), encoding="utf-8")
    return path
