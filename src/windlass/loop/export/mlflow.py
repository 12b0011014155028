"""A run sent to an MLflow tracking server by its REST API, version 2.0, without MLflow's package.

The API is the same for `mlflow server` on this machine and for managed ones; MLflow's folder of files is no longer
kept up by MLflow itself.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import httpx2

from windlass.core.errors import InputError, WindlassError
from windlass.loop.training.runs import Tracked, flat

_STATUS = {"done": "FINISHED", "failed": "FAILED", "interrupted": "KILLED", "running": "RUNNING"}
_BATCH, _PARAMS = 1000, 100  # most points, and most parameters, that one request may hold
_TOKEN = "MLFLOW_TRACKING_TOKEN"


def to_mlflow(run: Tracked, address: str, *, transport: httpx2.BaseTransport | None = None) -> str:
    """Makes a run in the experiment called after the run's kind; returns its id there.

    The environment variable MLFLOW_TRACKING_TOKEN is sent where it is set. Raises `InputError` for an address that is
    none, `WindlassError` when the server does not answer or refuses.
    """
    if not address.startswith(("http://", "https://")):
        raise InputError(f"'{address}' is not the address of an MLflow server.", "Give one as http://127.0.0.1:5000.")
    token = os.environ.get(_TOKEN)
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    record = run.record
    with httpx2.Client(base_url=address.rstrip("/"), headers=headers, timeout=30, transport=transport) as client:
        identifier: str = _call(
            client,
            "runs/create",
            {
                "experiment_id": _experiment(client, f"windlass-{record.kind}"),
                "run_name": record.name,
                "start_time": round(record.started * 1000),
            },
        )["run"]["info"]["run_id"]
        for part in _batches(run):
            _call(client, "runs/log-batch", {"run_id": identifier, **part})
        ended = {} if record.ended is None else {"end_time": round(record.ended * 1000)}
        _call(client, "runs/update", {"run_id": identifier, "status": _STATUS[record.status], **ended})
    return identifier


def _experiment(client: httpx2.Client, name: str) -> str:
    found = client.get("/api/2.0/mlflow/experiments/get-by-name", params={"experiment_name": name})
    if found.status_code == 200:
        return str(found.json()["experiment"]["experiment_id"])
    return str(_call(client, "experiments/create", {"name": name})["experiment_id"])


def _batches(run: Tracked) -> Iterator[Mapping[str, Sequence[Any]]]:
    """Parameters, tags and metrics, each request within the API's limits. MLflow knows no numbers that are none."""
    record = run.record
    params = [{"key": k[:250], "value": str(v)[:6000]} for k, v in flat(record.config).items()]
    tags = {"windlass.run": record.id, "windlass.seed": record.seed, "windlass.message": record.message}
    tags |= {f"windlass.environment.{key}": value for key, value in flat(record.environment).items()}
    yield {"tags": [{"key": key, "value": str(value)[:5000]} for key, value in tags.items()][:_PARAMS]}
    for start in range(0, len(params), _PARAMS):
        yield {"params": params[start : start + _PARAMS]}
    metrics = [
        {"key": name, "value": point.value, "timestamp": round(point.at * 1000), "step": point.step}
        for name, points in run.series.items()
        for point in points
        if math.isfinite(point.value)
    ]
    for start in range(0, len(metrics), _BATCH):
        yield {"metrics": metrics[start : start + _BATCH]}


def _call(client: httpx2.Client, method: str, values: Mapping[str, Any]) -> Any:
    try:
        answer = client.post(f"/api/2.0/mlflow/{method}", json=values)
    except httpx2.HTTPError as error:
        raise WindlassError(
            f"The MLflow server {client.base_url} does not answer: {error}.", "Is `mlflow server` running there?"
        ) from error
    if answer.status_code != 200:
        raise WindlassError(f"The MLflow server refused {method} ({answer.status_code}): {answer.text[:300]}")
    return answer.json()
