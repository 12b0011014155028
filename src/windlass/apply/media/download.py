"""Files that models make come here: fetched or decoded, limited in size, named by their digest.

What was made lies with other hosts than the API, so no key is sent for it, wherever the way leads.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import hashlib
import os
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

import httpx2

from windlass.core.errors import ProviderError
from windlass.core.files import disk_errors
from windlass.core.protocols import MediaFile
from windlass.core.version import __version__

LARGEST = 256 << 20
"""Bytes of one file."""
_HOPS = 5
_TRIES = 3
_ENDINGS: Mapping[str, str] = {
    "image/png": ".png", "image/jpeg": ".jpg", "image/webp": ".webp", "image/gif": ".gif", "image/svg+xml": ".svg",
    "audio/mpeg": ".mp3", "audio/wav": ".wav", "audio/x-wav": ".wav", "audio/ogg": ".ogg", "audio/flac": ".flac",
    "video/mp4": ".mp4", "video/webm": ".webm", "video/quicktime": ".mov", "model/gltf-binary": ".glb",
}  # fmt: skip
_KINDS = {ending: kind for kind, ending in reversed([*_ENDINGS.items()])}


def sources(output: Any) -> Iterator[tuple[str, str | None]]:
    """The addresses in what a host answered, in order, each with the type of its file where that is said."""
    if isinstance(output, str):
        if output.startswith(("https://", "http://", "data:")):
            yield output, None
    elif isinstance(output, list):
        for one in output:
            yield from sources(one)
    elif isinstance(output, Mapping):
        if isinstance(url := output.get("url"), str):
            kind = output.get("content_type")
            yield url, kind if isinstance(kind, str) else None
        else:
            for one in output.values():
                yield from sources(one)


async def fetched(
    url: str, kind: str | None, folder: Path, *, largest: int = LARGEST, plain: bool = False, transport: Any = None
) -> MediaFile:
    """The file behind an address. `plain`: http is good enough, where the host itself is asked by it.

    Raises `ProviderError` for a file that is too large, a page in place of one, and an address that does not answer.
    """
    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    if url.startswith("data:"):
        return _decoded(url, folder, largest)
    options: dict[str, Any] = {"headers": {"User-Agent": f"windlass/{__version__}"}, "transport": transport}
    async with httpx2.AsyncClient(timeout=60.0, **options) as client:
        for left in reversed(range(_TRIES)):
            try:
                return await _fetched(client, url, kind, folder, largest, plain)
            except httpx2.TransportError as error:
                if not left:
                    raise ProviderError(
                        f"{shown(url)} broke off what was made ({type(error).__name__}).",
                        "It has been paid for: fetch it from the host, where it lies for a while.",
                    ) from error
    raise AssertionError("unreachable")


async def _fetched(
    client: httpx2.AsyncClient, url: str, kind: str | None, folder: Path, largest: int, plain: bool
) -> MediaFile:
    for _ in range(_HOPS):
        if not url.startswith("https://") and not (plain and url.startswith("http://")):
            raise ProviderError(f"What was made lies at {shown(url)}, which is not https.")
        async with client.stream("GET", url) as response:
            if response.has_redirect_location:
                url = str(response.url.join(response.headers["location"]))
                continue
            if not response.is_success:
                raise ProviderError(
                    f"{shown(url)} answered status {response.status_code} in place of what was made.",
                    status=response.status_code,
                )
            said = response.headers.get("content-type", "").partition(";")[0].strip().lower()
            if said in ("text/html", "application/json", "application/xml", "text/xml"):
                raise ProviderError(f"{shown(url)} answered {said}, which is nothing that was made.", status=200)
            with _Keeping(folder, largest, shown(url)) as keeping:
                async for data in response.aiter_bytes():
                    keeping.add(data)
                return keeping.done(_kind(said, kind, url))
    raise ProviderError(f"{shown(url)} leads on and on.")


def _decoded(url: str, folder: Path, largest: int) -> MediaFile:
    head, _, text = url.removeprefix("data:").partition(",")
    kind, _, coding = head.partition(";")
    if coding.rpartition(";")[2] != "base64" or len(text) * 3 // 4 > largest + 2:
        raise ProviderError(f"The answer holds {shown(url)}, which is not base64, or more than {largest:,} bytes.")
    try:
        data = base64.b64decode(text, validate=True)
    except binascii.Error as error:
        raise ProviderError(f"The answer holds {shown(url)}, which is no base64 ({error}).") from error
    with _Keeping(folder, largest, shown(url)) as keeping:
        keeping.add(data)
        return keeping.done(kind or "application/octet-stream")


class _Keeping:
    """A file that grows beside its later place, and is gone if it is not finished."""

    def __init__(self, folder: Path, largest: int, where: str) -> None:
        self._folder, self._largest, self._where = folder, largest, where
        self._size = 0
        self._digest = hashlib.sha256()
        self._file: IO[bytes]

    def __enter__(self) -> _Keeping:
        with disk_errors(self._folder):
            self._file = tempfile.NamedTemporaryFile(dir=self._folder, prefix=".making-", delete=False)
        return self

    def add(self, data: bytes) -> None:
        self._size += len(data)
        if self._size > self._largest:
            raise ProviderError(
                f"{self._where} is larger than {self._largest:,} bytes.", "Allow more (largest=…), or order less."
            )
        self._digest.update(data)
        with disk_errors(self._folder):
            self._file.write(data)

    def done(self, kind: str) -> MediaFile:
        if not self._size:
            raise ProviderError(f"{self._where} is empty.")
        digest = self._digest.hexdigest()
        path = self._folder / f"{digest}{_ENDINGS.get(kind, '.bin')}"
        with disk_errors(path):
            self._file.flush()
            os.fsync(self._file.fileno())
            os.replace(self._file.name, path)
        return MediaFile(path, kind, digest, self._size)

    def __exit__(self, *_: object) -> None:
        self._file.close()
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._file.name)


def _kind(said: str, told: str | None, url: str) -> str:
    """What the answer says its file is, or the host, or the name at the end of the address."""
    if said not in ("", "application/octet-stream", "binary/octet-stream"):
        return said
    return told or _KINDS.get(Path(httpx2.URL(url).path).suffix.lower(), "application/octet-stream")


def shown(url: str) -> str:
    """An address without what may be secret in it: signatures stand in its query."""
    return url[:30] + "…" if url.startswith("data:") else url.partition("?")[0]
