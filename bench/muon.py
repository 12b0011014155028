"""How many tokens Muon needs for the loss that AdamW reaches: the same model, weights, data, order and schedule shape.

Both begin as `windlass train` does, but for the head start of the bigrams. AdamW trains to the end with several rates
for the matrices, its embedding and head at the rates that Muon's run has for them (which AdamW moves in both); the best
of these is the mark. Muon then trains with fewer steps, each run with a whole schedule of its own. The share of tokens
at which Muon meets the mark is found between its runs, on a straight line over the logarithm of the tokens.

    python -m bench.muon [--steps 720] [--threads 2]
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import os
import sys
import tempfile
from pathlib import Path

from bench._data import data_folder
from bench._pretrain_job import Job
from bench._windlass_loop import train
from bench.pretrain import heldout_loss, prepare, tokens

from windlass.core.tables import table

SHAPE = {"hidden": 192, "layers": 4, "heads": 3, "kv_heads": 1, "ffn": 512, "context": 256, "batch": 8}
MUON_RATES = (0.02, 0.1, 0.004)
"""Of matrices, embedding and head: those of our recipe at this width."""
ADAMW_RATES = [(rate, *MUON_RATES[1:]) for rate in (5e-4, 1e-3, 2e-3, 4e-3)]
SHARES = (0.5, 0.75)
"""Of AdamW's steps, that Muon gets."""
BAR = 0.75


def begin(job: Job) -> None:
    """Puts weights as `windlass train` initialises them in the place of the peers'."""
    from windlass.build.transformer.decoder import Decoder
    from windlass.build.transformer.hf import load_config, save_model
    from windlass.build.transformer.init import initialise

    model = Decoder(load_config(job.folder / "start"))
    initialise(model, 0)
    save_model(model, job.folder / "start")


def loss_after(job: Job, steps: int, optimizer: str, rates: tuple[float, float, float]) -> float:
    """Held-out nats a token of a run of its own."""
    run = dataclasses.replace(job, steps=steps, warmup=max(2, steps // 20))
    return heldout_loss(train(run, lambda loss: None, optimizer=optimizer, rates=rates).eval(), run)


def share_at(mark: float, losses: dict[float, float]) -> float:
    """The share of tokens at which the line through the two runs meets the mark."""
    (a, first), (b, second) = sorted(losses.items())
    slope = (second - first) / (math.log(b) - math.log(a))
    return math.exp(math.log(a) + (mark - first) / slope)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=720, help="steps of AdamW")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    args = parser.parse_args()
    data = data_folder()
    if not (data / "pretrain").is_dir():
        print(f"skipped: no texts in {data}; set WINDLASS_DATA", file=sys.stderr)
        return
    import torch

    torch.set_num_threads(args.threads)
    rows: list[tuple[str, int, float, float]] = []
    with tempfile.TemporaryDirectory() as scratch:
        job = prepare(Path(scratch) / "job", tokens(data), SHAPE, args.steps)
        begin(job)

        def measured(name: str, steps: int, optimizer: str, rates: tuple[float, float, float]) -> float:
            loss = loss_after(job, steps, optimizer, rates)
            rows.append((name, steps * job.batch_tokens, steps / args.steps, loss))
            print(f"  {name}, {steps} steps: {loss:.4f}", flush=True)
            return loss

        adamw = {
            rates: measured(f"AdamW, matrices {rates[0]:g}, embedding {rates[1]:g}", args.steps, "adamw", rates)
            for rates in ADAMW_RATES
        }
        mark = min(adamw.values())
        muon = {share: measured("Muon", round(share * args.steps), "muon", MUON_RATES) for share in SHARES}
    print()
    print(table(("", "tokens", "share", "held-out, nats a token"), [(*row[:3], f"{row[3]:.4f}") for row in rows]))
    share = share_at(mark, muon)
    print(f"\nMuon needs {share:.2f} of the tokens for AdamW's best, {mark:.4f} nats; the bar is {BAR}")
    print(
        json.dumps(
            {
                "bench": "muon",
                "ratio": round(share, 3),
                "against": "AdamW, the best of several rates: share of its tokens for its held-out loss",
                "adamw": round(mark, 4),
                "muon": {str(share): round(loss, 4) for share, loss in muon.items()},
                "bar": BAR,
            }
        )
    )


if __name__ == "__main__":
    main()
