"""lm-evaluation-harness's own `hf` backend on tasks of a folder, in its own environment.

`python _evaluate_peer.py MODEL TASKS THREADS` says `ready`, then takes lines of JSON {"batch": 16, "limit": 100} and
answers each with the seconds that the evaluation took and the replies of all items.
"""

from __future__ import annotations

import json
import logging
import sys
import time
from pathlib import Path
from typing import Any

import torch
from lm_eval.evaluator import simple_evaluate
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager


def main(model: str, tasks: Path, threads: int) -> None:
    answers, sys.stdout = sys.stdout, sys.stderr  # the harness prints
    logging.disable(logging.WARNING)
    torch.set_num_threads(threads)
    lm = HFLM(pretrained=model, dtype="float32", device="cpu", batch_size=1)
    manager = TaskManager(include_path=str(tasks), include_defaults=False)
    print("ready", file=answers, flush=True)
    for line in sys.stdin:
        print(json.dumps(answer(lm, manager, **json.loads(line))), file=answers, flush=True)


def answer(lm: Any, manager: Any, tasks: list[str], batch: int, limit: int | None) -> dict[str, Any]:
    lm.batch_size_per_gpu = batch
    start = time.perf_counter()
    found = simple_evaluate(
        model=lm, tasks=tasks, task_manager=manager, limit=limit, bootstrap_iters=0, log_samples=True
    )
    seconds = time.perf_counter() - start
    replies = {
        task: [
            [float(reply[0]) for reply in one["filtered_resps"]] for one in sorted(rows, key=lambda one: one["doc_id"])
        ]
        for task, rows in found["samples"].items()
    }
    return {"seconds": seconds, "replies": replies}


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]))
