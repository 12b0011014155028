"""lm-evaluation-harness on a folder of tasks, in its own environment: `python lm_eval_side.py BACKEND MODEL TASKS OUT`.

Writes, for each task, the replies and the scores of each item, and the time that the evaluation took.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import lm_eval
from lm_eval.evaluator import simple_evaluate
from lm_eval.tasks import TaskManager

METRICS = ("acc", "acc_norm", "acc_bytes", "acc_mutual_info", "perplexity", "word_perplexity", "bits_per_byte")


def main(backend: str, model: str, tasks: Path, out: Path) -> None:
    for path in tasks.glob("*.yaml"):  # definitions that come with it are named by their place in it
        path.write_text(path.read_text().replace("LM_EVAL", str(Path(lm_eval.__file__).parent / "tasks")))
    arguments: dict[str, Any] = {"pretrained": model}
    if backend == "windlass":
        import windlass.loop.benchmarks.lm_eval  # noqa: F401 (registers it)
    else:
        arguments |= {"dtype": "float32", "device": "cpu"}
    start = time.perf_counter()
    found = simple_evaluate(
        model=backend, model_args=arguments, tasks=sorted(path.stem for path in tasks.glob("*.yaml")),
        task_manager=TaskManager(include_path=str(tasks), include_defaults=False),
        batch_size=int(os.environ.get("LM_EVAL_BATCH", "4")), bootstrap_iters=0, log_samples=True,
        apply_chat_template=bool(os.environ.get("LM_EVAL_CHAT")),
    )  # fmt: skip
    seconds = time.perf_counter() - start
    told = {
        task: {
            "items": [item(one) for one in sorted(samples, key=lambda one: one["doc_id"])],
            "whole": {name.partition(",")[0]: value for name, value in found["results"][task].items()},
        }
        for task, samples in found["samples"].items()
    }
    out.write_text(json.dumps({"seconds": seconds, "tasks": told}, default=str))


def item(sample: dict[str, Any]) -> dict[str, Any]:
    """What it was told of one item, request by request, and the scores that it made of that."""
    replies = [plain(first) for first, *_ in sample["resps"]]
    return {"replies": replies, "scores": {name: sample[name] for name in METRICS if name in sample}}


def plain(reply: Any) -> Any:
    """[logprob, greedy], a logprob, or a text. The harness logs them as texts."""
    if isinstance(reply, list | tuple):
        return [float(reply[0]), str(reply[1]) == "True"]
    return float(reply) if isinstance(reply, float | int) else reply


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], Path(sys.argv[3]), Path(sys.argv[4]))
