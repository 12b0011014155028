"""What a constraint costs: compiling a grammar, one mask with its application, and the tokens it spares the model.

Texts are drawn at random among the tokens allowed, as a model without a will of its own would. The peer is llguidance
with its own helper for NumPy, which does the same mask and application (the one for PyTorch compiles for seconds when
it is first called).
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import sysconfig
import time
from pathlib import Path

import numpy as np
import torch
from llguidance import LLMatcher
from llguidance.numpy import allocate_token_bitmask, apply_token_bitmask_inplace, fill_next_token_bitmask

from windlass.build.tokenizer.training import train
from windlass.core.values import ToolSpec
from windlass.serve.engine.constraints.grammars import Grammars
from windlass.serve.engine.dialect.json_calls import HERMES
from windlass.serve.engine.dialect.tools import Tools, grammar

RECORD = {
    "type": "object",
    "properties": {
        "customer": {"type": "string", "maxLength": 12},
        "ordered": {"type": "string", "format": "date"},
        "lines": {
            "type": "array",
            "maxItems": 3,
            "items": {
                "type": "object",
                "properties": {
                    "article": {"enum": ["winch", "rope", "pawl"]},
                    "count": {"type": "integer", "minimum": 1, "maximum": 99},
                    "price_each": {"type": "number", "minimum": 0, "maximum": 1000},
                },
                "required": ["article", "count", "price_each"],
                "additionalProperties": False,
            },
        },
    },
    "required": ["customer", "ordered", "lines"],
    "additionalProperties": False,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--vocabulary", type=int, default=16_000)
    parser.add_argument("--texts", type=int, default=20)
    options = parser.parse_args()
    torch.set_num_threads(1)
    tokenizer = train(_sources(), options.vocabulary, kind="bpe", special=["<|im_end|>"], allow_smaller=True).tokenizer
    size, eos = tokenizer.get_vocab_size(), tokenizer.token_to_id("<|im_end|>")
    grammars = Grammars(tokenizer, [eos])
    call = grammar(HERMES, Tools([ToolSpec("place_order", parameters=RECORD)], "required", several=False))
    assert call is not None
    kinds = {
        "record": lambda: grammars.json_schema(RECORD),
        "any JSON object": lambda: grammars.json_schema({"type": "object"}),
        "tool call": lambda: grammars.grammar(call),
        "regex": lambda: grammars.regex(r"[A-Z]{2}[0-9]{2}( [0-9]{4}){4}"),
    }
    print(f"{size} tokens, {options.texts} texts each; microseconds")
    print(f"{'grammar':18}{'compile':>9}{'again':>8}{'mask':>8}{'p95':>8}{'max':>9}{'theirs':>9}{'forced':>9}")
    ratios = []
    for name, make in kinds.items():
        grammars._compiled.clear()
        first, again = _timed(make), statistics.median(_timed(make) for _ in range(20))
        ours, theirs, forced, written = [], [], 0, 0
        for seed in range(options.texts):
            chance, constraint = random.Random(seed), make()
            logits = torch.zeros(size)
            peer, bits = constraint._matcher.deep_copy(), allocate_token_bitmask(1, size)  # type: ignore[attr-defined]
            for _ in range(200):
                if constraint.ended:
                    break
                logits.zero_()
                ours.append(_timed(lambda: constraint.allow(logits)))  # noqa: B023 (called at once)
                theirs.append(_timed(lambda: _theirs(peer, bits, size)))  # noqa: B023
                allowed = torch.nonzero(logits == 0).flatten().tolist()
                token = eos if eos in allowed and chance.random() < 0.3 else chance.choice(allowed)
                written += 1
                forced += len(allowed) == 1
                constraint.accept(token)
                peer.consume_token(token)
        ours.sort()
        middle, ninety, most = ours[len(ours) // 2], ours[len(ours) * 95 // 100], ours[-1]
        ratios.append(statistics.median(theirs) / middle)
        print(
            f"{name:18}{first:9.0f}{again:8.0f}{middle:8.0f}{ninety:8.0f}{most:9.0f}"
            f"{statistics.median(theirs):9.0f}{forced / written:9.0%}"
        )
    print(json.dumps({"bench": "constraints", "ratio": round(min(ratios), 2), "against": "llguidance.numpy"}))


def _theirs(matcher: LLMatcher, bits: np.ndarray, size: int) -> None:
    fill_next_token_bitmask(matcher, bits)
    apply_token_bitmask_inplace(np.zeros((1, size), np.float32), bits)


def _timed(work) -> float:
    """Microseconds."""
    start = time.perf_counter()
    work()
    return (time.perf_counter() - start) * 1e6


def _sources() -> list[str]:
    """Python's own sources: text and code without a download."""
    folder = Path(sysconfig.get_paths()["stdlib"])
    return [path.read_text(encoding="utf-8", errors="ignore") for path in sorted(folder.glob("*.py"))]


if __name__ == "__main__":
    main()
