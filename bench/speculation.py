"""Guessing ahead against writing token by token: the engine with and without `Speculation`, same weights, same answers.

Random decoders in four situations: greedy texts of a few words, which repeat themselves, so that prompt lookup foresees
them; the same drawn at temperature 1, where what stood before tells nothing; a draft model of the first two layers, of
a model whose other layers change little; and a draft model that has nothing to do with the model. The two engines
take turns in every round, and the median of the rounds' ratios counts.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from dataclasses import replace

import torch

from windlass.build.transformer.config import TransformerConfig
from windlass.build.transformer.decoder import Decoder
from windlass.build.transformer.init import initialise
from windlass.serve.engine.engine import Engine
from windlass.serve.engine.request import Generation
from windlass.serve.engine.sampling.settings import Sampling
from windlass.serve.engine.speculation.speculation import Speculation

VOCABULARY = 2048
DRAFT_LAYERS = 2
SAY, RARE = 0.02, 0.2
"""How much each layer has to say, and what is left of it for the later ones where a draft shall be right at times."""
FEW = dict.fromkeys(range(8), 100.0)
"""Answers of eight words repeat themselves soon."""


def target(layers: int, hidden: int, *, tame: bool) -> Decoder:
    config = TransformerConfig(
        vocab_size=VOCABULARY, hidden=hidden, layers=layers, heads=hidden // 64, kv_heads=hidden // 64, head_dim=64,
        ffn=hidden * 8 // 3, context=1024,
    )  # fmt: skip
    model = Decoder(config)
    initialise(model, 0)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if ".output." in name or ".down." in name:  # which begin at 0
                later = int(name.split(".")[1]) >= DRAFT_LAYERS
                weight.normal_(std=SAY * (RARE if tame and later else 1.0), generator=generator)
    return model.eval().requires_grad_(False)


def draft_of(model: Decoder) -> Decoder:
    draft = Decoder(replace(model.config, layers=DRAFT_LAYERS))
    mine = {name: weight for name, weight in model.state_dict().items() if name in draft.state_dict()}
    draft.load_state_dict(mine)
    return draft.eval().requires_grad_(False)


def tokens_per_second(engine: Engine, rows: int, length: int, sampling: Sampling) -> float:
    generator = torch.Generator().manual_seed(rows)
    prompts = torch.randint(VOCABULARY, (rows, 32), generator=generator).tolist()
    asked = [Generation(prompt=prompt, max_tokens=length, sampling=sampling) for prompt in prompts]
    started = time.perf_counter()
    for run in [engine.submit(one) for one in asked]:
        list(run)
    return rows * length / (time.perf_counter() - started)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--layers", type=int, default=8)
    parser.add_argument("--hidden", type=int, default=512)
    parser.add_argument("--length", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    plain_weights = target(arguments.layers, arguments.hidden, tame=False)
    tame_weights = target(arguments.layers, arguments.hidden, tame=True)
    situations = [
        ("repeating, lookup", plain_weights, None, Sampling(temperature=0, logit_bias=FEW)),
        ("few words, drawn", plain_weights, None, Sampling(logit_bias=FEW)),
        ("draft model, greedy", tame_weights, draft_of(tame_weights), Sampling(temperature=0)),
        ("draft model, drawn", tame_weights, draft_of(tame_weights), Sampling()),
        ("useless draft, greedy", plain_weights, draft_of(tame_weights), Sampling(temperature=0)),
    ]
    print(f"{'':<24}{'rows':>5}{'plain tok/s':>13}{'guessing':>10}{'ratio':>8}{'right':>8}{'declined':>10}")
    ratios: dict[str, float] = {}
    for name, model, draft, sampling in situations:
        for rows in (1, 8):
            speculation = Speculation(draft)
            engines = Engine(model, share=False), Engine(model, share=False, speculation=speculation)
            for engine in engines:
                tokens_per_second(engine, rows, 16, sampling)
            rates = [
                [tokens_per_second(engine, rows, arguments.length, sampling) for engine in engines]
                for _ in range(arguments.rounds)
            ]
            for engine in engines:
                engine.close()
            ratio = statistics.median(guessing / plain for plain, guessing in rates)
            ratios[f"{name}, {rows}"] = ratio
            stats = speculation.stats()
            share = stats.accepted / stats.offered if stats.offered else 0.0
            plain, guessing = (statistics.median(column) for column in zip(*rates, strict=True))
            print(
                f"{name:<24}{rows:>5}{plain:>13.0f}{guessing:>10.0f}{ratio:>8.2f}{share:>8.2f}{stats.declined:>10}",
                flush=True,
            )
    worst = min(ratios, key=ratios.__getitem__)
    print(
        json.dumps(
            {"bench": "speculation", "ratio": round(ratios["repeating, lookup, 1"], 2), "against": "token by token",
             "worst": round(ratios[worst], 2), "worst_of": worst}
        )
    )  # fmt: skip


if __name__ == "__main__":
    main()
