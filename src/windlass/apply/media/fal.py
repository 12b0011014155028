"""fal's queue: `owner/app` or `owner/app/path`.

POST /{model}, GET /{app}/requests/{id}/status, GET /{app}/requests/{id}, PUT /{app}/requests/{id}/cancel
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from windlass.apply.media.prediction import Prediction, inputs_with
from windlass.apply.providers.dialects.dialect import Call
from windlass.core.errors import ConfigError

_NAMESPACES = ("workflows", "comfy")


class Fal:
    api = "The fal API"

    def __init__(self, model: str) -> None:
        parts = model.split("/")
        length = 3 if parts[0] in _NAMESPACES else 2
        if len(parts) < length or not all(parts):
            raise ConfigError(f"'{model}' is no model at fal.", "Write owner/app, for example fal-ai/flux/dev.")
        self.model = model
        self._app = "/".join(parts[:length])  # what follows is a path of the app, of which its requests know nothing

    def order(self, prompt: str, inputs: Mapping[str, Any]) -> Call:
        return Call(f"/{self.model}", inputs_with(prompt, inputs))

    def read(self, value: Mapping[str, Any]) -> Prediction:
        if "request_id" in value and "status" not in value:
            return Prediction(value["request_id"], "running")
        id, status = str(value.get("request_id") or ""), value["status"]
        seconds = (value.get("metrics") or {}).get("inference_time")
        if error := value.get("error"):
            return Prediction(id, "failed", problem=str(error), seconds=seconds)
        if status not in ("IN_QUEUE", "IN_PROGRESS", "COMPLETED"):
            raise ValueError(f"status {status!r}")
        return Prediction(id, "done" if status == "COMPLETED" else "running", seconds=seconds)

    def look(self, id: str) -> Call:
        return Call(f"/{self._app}/requests/{id}/status", None)

    def result(self, id: str) -> Call | None:
        return Call(f"/{self._app}/requests/{id}", None)

    def cancel(self, id: str) -> Call | None:
        return Call(f"/{self._app}/requests/{id}/cancel", None, method="PUT")
