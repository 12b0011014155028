"""Every failure as OpenAI's clients expect it: a status, and `{"error": {message, type, param, code}}`."""

from __future__ import annotations

import json
import sys
import traceback
from collections.abc import Mapping
from typing import Any

from starlette.responses import Response

from windlass.core.errors import (
    InputError,
    NoMemory,
    NotFound,
    ProviderError,
    TimedOut,
    Unsupported,
    WindlassError,
    WorkspaceBusy,
    WorkspaceError,
)

_TYPES = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}


class BadField(InputError):
    """A request that cannot be honoured; `param` names the field, as OpenAI's errors do."""

    def __init__(self, param: str | None, message: str, hint: str = "", *, code: str | None = None) -> None:
        super().__init__(message, hint)
        self.param = param
        self.code = code


class HttpError(WindlassError):
    """A refusal that has a status of its own."""

    def __init__(
        self, status: int, message: str, hint: str = "", *, code: str | None = None, param: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:  # fmt: skip
        super().__init__(message, hint)
        self.status = status
        self.code = code
        self.param = param
        self.headers = dict(headers or {})


def status_of(error: BaseException) -> int:
    match error:
        case HttpError():
            return error.status
        case NotFound():
            return 404
        case InputError() | Unsupported():
            return 400
        case ProviderError(status=429):
            return 429
        case ProviderError(status=None) | TimedOut() | TimeoutError():
            return 504
        case ProviderError():
            return 502  # whatever it was, it went wrong between us and the provider, not the client and us
        case WorkspaceBusy() | NoMemory():
            return 503
        case WorkspaceError():
            return 507
        case _:
            return 500


def error_json(error: BaseException) -> dict[str, Any]:
    """The body of an error. What is not a `WindlassError` is a fault of ours: its traceback goes to stderr, not out."""
    if isinstance(error, WindlassError):
        message = " ".join(part for part in (error.message, error.hint) if part)
    elif isinstance(error, TimeoutError):
        message = "The request took longer than this server allows. Ask for fewer tokens."
    else:
        traceback.print_exception(error, file=sys.stderr)
        message = f"The server failed unexpectedly ({type(error).__name__}); its log says more."
    status = status_of(error)
    code = getattr(error, "code", None)
    if code is None:
        codes = {BadField: "invalid_value", Unsupported: "unsupported", TimedOut: "timeout", TimeoutError: "timeout"}
        code = codes.get(type(error))
    return {
        "error": {
            "message": message,
            "type": _TYPES.get(status, "invalid_request_error" if status < 500 else "server_error"),
            "param": getattr(error, "param", None),
            "code": code,
        }
    }


def error_response(error: BaseException) -> Response:
    headers = error.headers if isinstance(error, HttpError) else {}
    if status_of(error) == 429:
        headers = {"Retry-After": "1", **headers}
    return json_response(error_json(error), status_of(error), headers)


def json_response(body: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """Compact JSON in ASCII, so that nothing a model or a client made up can fail to encode."""
    text = json.dumps(body, separators=(",", ":"), allow_nan=False)
    return Response(text, status, dict(headers or {}), media_type="application/json")
