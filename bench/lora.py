"""Writing with a different adapter in every row: `Adapters` against PEFT's mixed batches, and against no adapters.

Eight rows of 64 tokens on a random Llama of 134 million weights in float32, each row with a LoRA of rank 16 on all
matrices of attention and MLPs, 16 tokens each. All take turns; the fastest step of each counts.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import peft
import torch
import transformers
from bench.scorer import SHAPE

from windlass.build.transformer.decoder import Decoder
from windlass.build.transformer.hf import load_decoder
from windlass.build.transformer.ragged import Parts
from windlass.serve.engine.adapters.lora import Adapters

ROWS, PROMPT, STEPS, RANK = 8, 64, 16, 16
TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
NAMES = [f"adapter{row}" for row in range(ROWS)]


def adapted(base: Any, folder: Path) -> Any:
    """A model of PEFT with a random adapter for each row, saved to a folder each."""
    config = peft.LoraConfig(r=RANK, lora_alpha=2 * RANK, target_modules=TARGETS)
    model = peft.get_peft_model(base, config, adapter_name=NAMES[0])
    for name in NAMES[1:]:
        model.add_adapter(name, config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(0, 0.02)
    model.save_pretrained(folder)
    return model.eval()


def ours(decoder: Decoder, adapters: Adapters, names: list[str] | None, tokens_BT: torch.Tensor) -> Callable[[], Any]:
    """One step of all rows; the first call reads the prompts."""
    caches = [decoder.new_cache(capacity=PROMPT + STEPS + 2) for _ in range(ROWS)]
    loras = [None] * ROWS if names is None else [adapters[name] for name in names]
    state = {"next": tokens_BT}

    def step() -> torch.Tensor:
        new = state["next"].shape[1]
        with adapters.rows([(lora, new) for lora in loras]):
            x_TC = decoder.hidden_of_parts(state["next"].flatten(), Parts([new] * ROWS, caches))
        logits_BV = decoder.logits(x_TC.view(ROWS, new, -1)[:, -1])
        state["next"] = logits_BV.argmax(-1, keepdim=True)
        return logits_BV

    return step


def theirs(model: Any, names: list[str], tokens_BT: torch.Tensor) -> Callable[[], Any]:
    state: dict[str, Any] = {"next": tokens_BT, "cache": None}

    def step() -> torch.Tensor:
        out = model(
            input_ids=state["next"], past_key_values=state["cache"], use_cache=True, logits_to_keep=1,
            adapter_names=names,
        )  # fmt: skip
        state["cache"], logits_BV = out.past_key_values, out.logits[:, -1]
        state["next"] = logits_BV.argmax(-1, keepdim=True)
        return logits_BV

    return step


@torch.inference_mode()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    tokens_BT = torch.randint(SHAPE["vocab_size"], (ROWS, PROMPT))
    with tempfile.TemporaryDirectory() as name, torch.inference_mode(False):
        folder = Path(name)
        base = transformers.LlamaForCausalLM(transformers.LlamaConfig(**SHAPE)).eval()
        base.save_pretrained(folder / "base")
        decoder = load_decoder(folder / "base").requires_grad_(False)
        peer = adapted(base, folder)
        adapters = Adapters(decoder, max_bytes=1 << 32)
        for one in NAMES:
            adapters.load(one, folder / one)
    steps = {
        "windlass": ours(decoder, adapters, NAMES, tokens_BT),
        "windlass, no adapters": ours(decoder, adapters, None, tokens_BT),
        "PEFT": theirs(peer, NAMES, tokens_BT),
    }
    first = {name: step() for name, step in steps.items()}
    difference = float((first["windlass"] - first["PEFT"]).abs().max())
    effect = float((first["windlass"] - first["windlass, no adapters"]).abs().max())
    best = dict.fromkeys(steps, float("inf"))
    for _ in range(STEPS):
        for name, step in steps.items():
            start = time.perf_counter()
            step()
            best[name] = min(best[name], time.perf_counter() - start)
    print(
        f"torch {torch.__version__}, peft {peft.__version__}, {args.threads} threads, {ROWS} adapters of rank {RANK}\n"
    )
    for name, seconds in best.items():
        print(f"{name:24}{1000 * seconds:8.1f} ms/step{ROWS / seconds:9.0f} tokens/s")
    print(f"largest difference of a logit: {difference:.1e} (adapters move it by {effect:.1e})")
    line = {
        "bench": "lora",
        "ratio": round(best["PEFT"] / best["windlass"], 2),
        "against": "PEFT mixed batch",
        "price": round(best["windlass"] / best["windlass, no adapters"], 3),
        "max_abs_diff": difference,
    }
    print(json.dumps(line))


if __name__ == "__main__":
    main()
