"""Media hosts in memory. Each makes one picture, which lies with another host, and is done at the third look."""

from __future__ import annotations

import base64
import json
import struct
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import httpx2

from windlass.apply.media import media
from windlass.apply.media.host import MediaHost

KEY = "r8_very-secret-key"
VARIABLES = ("REPLICATE_API_TOKEN", "FAL_KEY", "OPENAI_API_KEY")
FILE = "https://files.example/out.png?signature=secret"


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


PICTURE = (
    b"\x89PNG\r\n\x1a\n"
    + chunk(b"IHDR", struct.pack(">IIBBBBB", 1, 1, 8, 0, 0, 0, 0))
    + chunk(b"IDAT", zlib.compress(b"\0\0"))
    + chunk(b"IEND", b"")
)
Handler = Callable[[httpx2.Request], httpx2.Response]


class World:
    model = "replicate:maker/picture"
    base = "https://api.example/v1"

    def __init__(self) -> None:
        self.requests: list[httpx2.Request] = []
        self.looks = 0
        self.done_at = 3
        self.problem = ""
        """Why nothing is made."""
        self.cancelled = 0
        self.output: Any = [FILE]
        self.before: Handler | None = None
        """Answers in place of the API, until it raises `StopIteration`."""
        self.files: dict[str, Handler] = {"files.example": lambda request: picture()}

    def host(self, folder: Path | None, **more: Any) -> MediaHost:
        return media(self.model, base_url=self.base, folder=folder, transport=httpx2.MockTransport(self), **more)

    def __call__(self, request: httpx2.Request) -> httpx2.Response:
        self.requests.append(request)
        if request.url.host != "api.example":
            return self.files[request.url.host](request)
        if self.before is not None:
            try:
                return self.before(request)
            except StopIteration:
                self.before = None
        return self.answer(request, request.url.path.removeprefix("/v1"))

    def answer(self, request: httpx2.Request, path: str) -> httpx2.Response:
        match request.method, path:
            case "POST", "/models/maker/picture/predictions":
                return httpx2.Response(201, json=self.told())
            case "GET", "/predictions/p1":
                self.looks += 1
                return httpx2.Response(200, json=self.told())
            case "POST", "/predictions/p1/cancel":
                self.cancelled += 1
                return httpx2.Response(200, json=self.told())
        raise AssertionError(f"{request.method} {path}")

    def told(self) -> dict[str, Any]:
        if self.looks < self.done_at:
            return {"id": "p1", "status": "processing" if self.looks else "starting", "output": None, "error": None}
        if self.problem:
            return {"id": "p1", "status": "failed", "output": None, "error": self.problem}
        return {
            "id": "p1", "status": "succeeded", "output": self.output, "error": None, "metrics": {"predict_time": 1.5}
        }  # fmt: skip


class FalWorld(World):
    model = "fal:maker/picture/fast"
    base = "https://api.example"

    def __init__(self) -> None:
        super().__init__()
        self.output = {"images": [{"url": FILE, "content_type": "image/png", "width": 1}], "seed": 3}

    def answer(self, request: httpx2.Request, path: str) -> httpx2.Response:
        place = "/maker/picture/requests/p1"
        match request.method, path.removeprefix(place):
            case "POST", "/maker/picture/fast":
                return httpx2.Response(200, json={"request_id": "p1", "status_url": "https://elsewhere.example/x"})
            case "GET", "/status":
                self.looks += 1
                over = self.looks >= self.done_at
                status = "COMPLETED" if over else "IN_PROGRESS" if self.looks > 1 else "IN_QUEUE"
                told = {"request_id": "p1", "status": status, "metrics": {"inference_time": 1.5}}
                return httpx2.Response(200, json=told | ({"error": self.problem} if self.problem and over else {}))
            case "GET", "":
                return httpx2.Response(200, json=self.output)
            case "PUT", "/cancel":
                self.cancelled += 1
                return httpx2.Response(202, json={"status": "CANCELLATION_REQUESTED"})
        raise AssertionError(f"{request.method} {path}")


class OpenAIWorld(World):
    model = "openai:gpt-image-1"

    def answer(self, request: httpx2.Request, path: str) -> httpx2.Response:
        assert (request.method, path) == ("POST", "/images/generations")
        if self.problem:
            return httpx2.Response(400, json={"error": {"message": self.problem, "code": "moderation_blocked"}})
        usage = {"input_tokens": 9, "output_tokens": 272, "input_tokens_details": {"text_tokens": 9, "image_tokens": 0}}
        image = {"b64_json": base64.b64encode(PICTURE).decode()}
        return httpx2.Response(200, json={"created": 1, "data": [image], "usage": usage, "output_format": "png"})


WORLDS: Mapping[str, type[World]] = {"replicate": World, "fal": FalWorld, "openai": OpenAIWorld}


def picture(**headers: str) -> httpx2.Response:
    return httpx2.Response(200, content=PICTURE, headers={"content-type": "image/png", **headers})


def body(request: httpx2.Request) -> Any:
    return json.loads(request.content)
