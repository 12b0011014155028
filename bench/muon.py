"""How many tokens Muon needs for the loss that AdamW reaches: the same model, weights, data, order and schedule shape.

AdamW trains to the end with each of several rates for the matrices, its embedding and head at the rates that Muon's run
has for them (which AdamW moves in both), and once with one rate for all; the best of these is the mark. Muon then
trains with fewer steps, each run with a whole schedule of its own. The share of tokens at which Muon meets the mark
is found between its runs, on a straight line over the logarithm of the tokens. Lower is better.

    python -m bench.muon [--steps 300] [--threads 2]
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

from bench._pretrain_job import Job
from bench._windlass_loop import MUON_RATES, train
from bench.pretrain import heldout_loss, prepare, tokens

from windlass.core.tables import table

SHAPE = {"hidden": 192, "layers": 4, "heads": 3, "kv_heads": 1, "ffn": 512, "context": 256, "batch": 8}
ADAMW_RATES = (1.5e-3, 3e-3, 6e-3)
ALONE = (3e-3, 3e-3, 3e-3)
SHARES = (0.5, 0.75)
"""Of AdamW's steps, that Muon gets."""
BAR = 0.75


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
    parser.add_argument("--steps", type=int, default=300, help="steps of AdamW")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    args = parser.parse_args()
    data = Path(os.environ.get("WINDLASS_DATA", Path(__file__).parents[2] / "shared" / "data"))
    if not (data / "pretrain").is_dir():
        print(f"skipped: no texts in {data}; set WINDLASS_DATA", file=sys.stderr)
        return
    import torch

    torch.set_num_threads(args.threads)
    rows: list[tuple[str, int, float, float]] = []
    with tempfile.TemporaryDirectory() as scratch:
        job = prepare(Path(scratch) / "job", tokens(data), SHAPE, args.steps)

        def measured(name: str, steps: int, optimizer: str, rates: tuple[float, float, float]) -> float:
            loss = loss_after(job, steps, optimizer, rates)
            rows.append((name, steps * job.batch_tokens, steps / args.steps, loss))
            print(f"  {name}, {steps} steps: {loss:.4f}", flush=True)
            return loss

        adamw = {
            rates: measured(f"AdamW, matrices {rates[0]:g}, embedding {rates[1]:g}", args.steps, "adamw", rates)
            for rates in [(rate, *MUON_RATES[1:]) for rate in ADAMW_RATES] + [ALONE]
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
