"""A small encoder takes a task over from an expensive way of doing it, and the gate says whether it may.

The task is TREC's: which of six kinds of answer a question asks for. The expensive variant reads each question beside
the 64 known ones that are most alike, pair by pair, with a cross-encoder (MiniLM, tuned on the 400 known questions to
say whether two ask for the same kind), and lets them vote: as systems do that put examples into a prompt, it grows with
what it compares, and nothing of it can be kept from call to call. It answers replayed traffic, users approve or
correct, and one turn (`windlass turn --margin 0.02`) makes small models of what was said and compares the best with
what is live: the encoder may take over if it is shown to lose at most 2 of 100 and to be faster. Both are then measured
on questions that neither users nor turn have touched: how often they are right, and processor time of whole calls of
the task, one by one, all threads together, in float32.

    python -m bench.takeover [--scale 0.3]
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from bench._turn_tasks import Labelled, comparing, cpu_ms, data, replay, rights, topic

from windlass.build.adapt.recipe import TUNING
from windlass.build.adapt.tuning import tune
from windlass.core.workspace import Workspace
from windlass.evaluate.gate import non_inferiority, superiority
from windlass.evaluate.policy import Policy
from windlass.evaluate.statistics.intervals import wilson_interval
from windlass.evaluate.statistics.paired import paired_difference
from windlass.loop.prompting.optimising import live_prompt
from windlass.loop.turning.spending import Limits
from windlass.loop.turning.turn import Plan, turn_task
from windlass.serve.encoders.cross_encoder import CrossEncoder

KNOWN, TRAFFIC, UNUSED, COMPARED, MARGIN, WANTED = 400, 800, 300, 64, 0.02, 20


def judge(ws: Workspace, known: Sequence[Labelled], folder: Path) -> CrossEncoder:
    """A cross-encoder that says whether two questions ask for the same kind of answer."""
    draw = random.Random(0)
    rows = []
    for one in known:
        same = [other.text for other in known if other.label == one.label and other is not one]
        others = [other.text for other in known if other.label != one.label]
        if same:
            rows.append({"query": one.text, "positive": draw.sample(same, 1), "negatives": draw.sample(others, 3)})
    path = folder / "pairs.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    asked = {
        "data.dataset": str(path),
        "data.heldout": 0.05,
        "data.epochs": 4.0,
        "data.overlong": "cut",
        "run.name": "judge",
    }
    return CrossEncoder.from_folder(tune(ws, TUNING.read("rank", asked), say=lambda line: None).path)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scale", type=float, default=1.0, help="of the traffic; 1: as reported")
    arguments = parser.parse_args(argv)
    from windlass.serve.encoders.embedder import MiniLM

    found = data("topic", KNOWN, [round(arguments.scale * TRAFFIC)], UNUSED)
    with tempfile.TemporaryDirectory() as folder, Workspace(Path(folder)) as ws:
        teacher = comparing(found.known, MiniLM.load(), judge(ws, found.known, Path(folder)), COMPARED)
        print(
            f"the expensive variant is ready: {len(found.known)} known questions, {COMPARED} read for each", flush=True
        )
        live_prompt(ws, topic.using(prompt=None, model=teacher))
        function = topic.using(model=teacher).using(prompt="topic:live")  # a release may name another model
        share = replay(ws, function, found.traffic[0])
        print(f"traffic: {len(found.traffic[0]):,} questions, {share:.1%} answered rightly", flush=True)
        before, dear = rights(ws, function, found.unused), cpu_ms(ws, function, found.unused[:40])
        policy = Policy("score", non_inferiority(MARGIN), {"latency_ms": superiority(better="lower")})
        turned = turn_task(
            ws, function, Plan(Limits(minutes=30)), policy=policy, tell=lambda line: print(f"  {line}", flush=True)
        )
        print(turned.page.markdown())
        after, cheap = rights(ws, function, found.unused), cpu_ms(ws, function, found.unused[:400])
    for name, right, cost in (("expensive", before, dear), ("live now", after, cheap)):
        print(
            f"{name:<10} right {wilson_interval(int(right.sum()), len(right))}, {cost:.2f} ms of processor time a call"
        )
    clusters = [str(n) for n in range(len(before))]
    gain = paired_difference(before, after, clusters).difference
    print(f"difference {gain.estimate:+.4f} [{gain.low:+.4f}, {gain.high:+.4f}] on {len(before)} unused questions")
    result = {
        "bench": "takeover",
        "ratio": round(dear / cheap, 1),
        "against": f"{COMPARED} comparisons by a cross-encoder",
        "cpu_ms": [round(dear, 2), round(cheap, 2)],
        "right": [round(float(before.mean()), 4), round(float(after.mean()), 4)],
        "gain": [round(gain.estimate, 4), round(gain.low, 4), round(gain.high, 4)],
        "verdict": turned.compared[-1].decision if turned.compared else "not compared",
        "promoted": turned.promoted,
    }
    print(json.dumps(result))
    return int(not (turned.promoted and dear / cheap >= WANTED and gain.low > -MARGIN))


if __name__ == "__main__":
    sys.exit(main())
