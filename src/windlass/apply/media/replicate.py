"""Replicate: `owner/name` for its official models, `owner/name:version` for all others.

POST /models/{owner}/{name}/predictions or /predictions, GET /predictions/{id}, POST /predictions/{id}/cancel
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from windlass.apply.media.prediction import Prediction, inputs_with
from windlass.apply.providers.dialects.dialect import Call
from windlass.core.errors import ConfigError


class Replicate:
    api = "The Replicate API"

    def __init__(self, model: str) -> None:
        if model.count("/") != 1:
            raise ConfigError(f"'{model}' is no model at Replicate.", "Write owner/name, or owner/name:version.")
        self.model = model
        self._name, _, self._version = model.partition(":")

    def order(self, prompt: str, inputs: Mapping[str, Any]) -> Call:
        body: dict[str, Any] = {"input": inputs_with(prompt, inputs)}
        if self._version:
            return Call("/predictions", {"version": self._version, **body})
        return Call(f"/models/{self._name}/predictions", body)

    def read(self, value: Mapping[str, Any]) -> Prediction:
        status = value["status"]
        seconds = (value.get("metrics") or {}).get("predict_time")
        if status in ("failed", "canceled", "aborted"):
            problem = str(value.get("error") or f"it was {status} at the host")
            return Prediction(value["id"], "failed", problem=problem, seconds=seconds)
        if not isinstance(status, str):
            raise TypeError(f"status {status!r}")
        done = status == "succeeded"
        return Prediction(value["id"], "done" if done else "running", value.get("output"), seconds=seconds)

    def look(self, id: str) -> Call:
        return Call(f"/predictions/{id}", None)

    def result(self, id: str) -> Call | None:
        return None

    def cancel(self, id: str) -> Call | None:
        return Call(f"/predictions/{id}/cancel", None, method="POST")
