"""Runs beside each other, and given to other tools; read back with those tools' own readers where they are light."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path

import httpx2
import pytest

from windlass.core.errors import InputError, NotFound, WindlassError
from windlass.core.workspace import Workspace
from windlass.loop.export.files import to_csv, to_jsonl
from windlass.loop.export.mlflow import to_mlflow
from windlass.loop.export.tensorboard import to_tensorboard
from windlass.loop.training.runs import Tracked, comparison, differences, equal_loss, labels, reached, summary, tracked

STEPS = 200


@pytest.fixture
def runs(tmp_path: Path) -> list[Tracked]:
    """Two runs of 100 tokens a step, the second twice as fast in steps and half as fast in tokens a second."""
    with Workspace(tmp_path) as ws:
        ids = []
        for name, rate, speed in (("slow", 100.0, 1000.0), ("fast", 50.0, 500.0)):
            config = {"settings": {"optimizer": {"kind": name, "clip": 1.0}}, "corpus": "abc"}
            with ws.runs.start("pretrain", name, config=config, seed=3) as run:
                for step in range(1, STEPS + 1):
                    loss = 2 + 3 * math.exp(-step / rate)
                    run.log(step, train_loss=loss, tokens=100 * step, tokens_per_s=speed, mfu=0.5)
                run.log(STEPS, heldout_bpb=1.5)
            ids.append(run.id)
        return [tracked(ws, identifier) for identifier in ids]


def test_only_what_differs_is_told(runs: list[Tracked]) -> None:
    assert differences(runs) == {"settings.optimizer.kind": ["slow", "fast"]}
    assert differences([runs[0], runs[0]]) == {}


def test_tokens_and_time_to_an_equal_loss(runs: list[Tracked]) -> None:
    loss = equal_loss(runs)
    assert loss is not None
    slow, fast = (reached(run, loss) for run in runs)
    assert slow is not None and fast is not None
    assert slow.step == STEPS
    assert fast.tokens == pytest.approx(slow.tokens / 2, rel=0.06)  # the mean over the last steps lags behind
    assert slow.seconds == pytest.approx(STEPS * 100 / 1000)
    assert fast.seconds == pytest.approx(fast.tokens / 500)
    assert reached(runs[0], 0.0) is None
    assert equal_loss(runs, "accuracy") is None


def test_a_comparison_shows_all_of_it(runs: list[Tracked]) -> None:
    text = comparison(runs)
    for part in ("settings.optimizer.kind", "heldout_bpb", "A slow   B fast", "training time", "0.5"):
        assert part in text
    assert "clip" not in text
    with pytest.raises(InputError, match="at least two"):
        comparison(runs[:1])
    assert labels([runs[0], runs[0]])[0].startswith("slow ")


def test_a_run_without_metrics_can_be_compared_too(tmp_path: Path, runs: list[Tracked]) -> None:
    with Workspace(tmp_path) as ws:
        with ws.runs.start("pretrain", "empty") as run:
            pass
        text = comparison([runs[0], tracked(ws, run.id)])
        assert "To a training loss" not in text
        with pytest.raises(NotFound, match="no run 'x'"):
            tracked(ws, "x")


def test_the_summary_says_what_a_run_took(runs: list[Tracked]) -> None:
    text = summary(runs[0])
    assert "20,000 tokens · 1,000 tokens/s (median) · 50% MFU (median)" in text
    assert "┤" in text


def test_csv_and_json_lines_hold_every_point(runs: list[Tracked], tmp_path: Path) -> None:
    rows = list(csv.DictReader(to_csv(runs[0], tmp_path).read_text().splitlines()))
    assert [int(row["step"]) for row in rows] == list(range(1, STEPS + 1))
    assert [float(row["train_loss"]) for row in rows] == [p.value for p in runs[0].series["train_loss"]]
    assert [row["heldout_bpb"] for row in rows] == [""] * (STEPS - 1) + ["1.5"]
    head, *points = map(json.loads, to_jsonl(runs[0], tmp_path).read_text().splitlines())
    assert head["config"] == runs[0].record.config
    assert len(points) == sum(map(len, runs[0].series.values()))


def test_tensorboard_reads_what_was_written(runs: list[Tracked], tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="needs windlass[test]")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    path = to_tensorboard(runs[0], tmp_path)
    events = EventAccumulator(str(path), size_guidance={"scalars": 0, "tensors": 0}).Reload()
    assert set(events.Tags()["scalars"]) == set(runs[0].series)
    for name, points in runs[0].series.items():
        found = events.Scalars(name)
        assert [event.step for event in found] == [point.step for point in points]
        assert [event.value for event in found] == pytest.approx([point.value for point in points])
        assert [event.wall_time for event in found] == [point.at for point in points]
    (text,) = events.Tensors("config")
    assert json.loads(text.tensor_proto.string_val[0]) == runs[0].record.config


class Server:
    """Answers as MLflow's REST API does, and keeps what it was told."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, dict[str, object]]] = []
        self.status = 200

    def __call__(self, request: httpx2.Request) -> httpx2.Response:
        method = request.url.path.removeprefix("/api/2.0/mlflow/")
        if method == "experiments/get-by-name":
            return httpx2.Response(404, json={"error_code": "RESOURCE_DOES_NOT_EXIST"})
        self.calls.append((method, json.loads(request.content)))
        answers = {"experiments/create": {"experiment_id": "7"}, "runs/create": {"run": {"info": {"run_id": "r1"}}}}
        return httpx2.Response(self.status, json=answers.get(method, {}))


def test_mlflow_gets_every_point_in_requests_of_allowed_size(runs: list[Tracked]) -> None:
    server = Server()
    assert to_mlflow(runs[0], "http://mlflow.test", transport=httpx2.MockTransport(server)) == "r1"
    methods = [method for method, _ in server.calls]
    assert methods[:2] == ["experiments/create", "runs/create"] and methods[-1] == "runs/update"
    assert server.calls[1][1]["experiment_id"] == "7"
    assert server.calls[-1][1]["status"] == "FINISHED"
    batches = [values for method, values in server.calls if method == "runs/log-batch"]
    metrics = [m for batch in batches for m in batch.get("metrics", [])]
    assert len(metrics) == sum(map(len, runs[0].series.values()))
    assert all(len(batch.get("metrics", [])) <= 1000 and len(batch.get("params", [])) <= 100 for batch in batches)
    params = {p["key"]: p["value"] for batch in batches for p in batch.get("params", [])}
    assert params["settings.optimizer.kind"] == "slow"


def test_mlflow_messages_fit_its_own_definitions(runs: list[Tracked]) -> None:
    """Unknown fields and wrong types are what its server refuses; its package is a heavy peer, not a dependency."""
    service = pytest.importorskip("mlflow.protos.service_pb2", reason="needs mlflow-skinny")
    from google.protobuf.json_format import ParseDict

    server = Server()
    to_mlflow(runs[0], "http://mlflow.test", transport=httpx2.MockTransport(server))
    kinds = {
        "experiments/create": service.CreateExperiment,
        "runs/create": service.CreateRun,
        "runs/log-batch": service.LogBatch,
        "runs/update": service.UpdateRun,
    }
    for method, values in server.calls:
        ParseDict(values, kinds[method]())


def test_a_server_that_refuses_is_named(runs: list[Tracked]) -> None:
    server = Server()
    server.status = 403
    with pytest.raises(WindlassError, match=r"refused experiments/create \(403\)"):
        to_mlflow(runs[0], "http://mlflow.test", transport=httpx2.MockTransport(server))
    with pytest.raises(InputError, match="not the address"):
        to_mlflow(runs[0], "some/folder")
