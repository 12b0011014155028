"""What is installed, what is missing, which endpoints answer, and what to do about each."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
import re
import shutil
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from windlass.apply.providers.known import PROVIDERS
from windlass.core.config import Config, ModelConfig, load_config, secret
from windlass.core.errors import ConfigError, InputError, NotFound, WindlassError
from windlass.core.extras import ALL, EXTRAS
from windlass.core.sandbox.process import confinement
from windlass.core.workspace import find_workspace
from windlass.loop.benchmarks.evaluating import data_folder
from windlass.loop.living import living
from windlass.loop.text import counted

State = Literal["ok", "note", "missing", "broken"]

LOW_DISK_GB = 2.0


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the examination. `broken` alone makes `windlass doctor` fail."""

    what: str
    state: State
    detail: str
    do: str = ""


def examine(start: Path) -> Iterator[Finding]:
    """Looks at the machine, the installation, the workspace above `start` and the endpoints it names."""
    yield _python()
    yield from _machine(start)
    yield from _extras()
    yield _compiler()
    yield from _evaluation()
    config = None
    try:
        with find_workspace(start) as workspace:
            config = workspace.config
            made, indexes = len(workspace.store.artifacts()), len(living(workspace))
            holds = f"{counted(made, 'artifact')}, {counted(indexes, 'living index', 'living indexes')}"
            yield Finding("workspace", "ok", f"{workspace.root}: {holds}")
    except NotFound:
        yield Finding(
            "workspace", "note", "none here", "`windlass ingest FOLDER`, `windlass init` or `windlass demo` makes one"
        )
        try:
            config = load_config(start)
        except ConfigError as error:
            yield Finding("windlass.toml", "broken", error.message, error.hint)
    except WindlassError as error:
        yield Finding("workspace", "broken", error.message, error.hint)
    if config is not None:
        yield from _settings(config)


def _python() -> Finding:
    return Finding("python", "ok", f"{platform.python_version()} on {platform.platform(terse=True)}")


def _machine(start: Path) -> Iterator[Finding]:
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    memory = ""
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        memory = f", {os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE') / 2**30:.1f} GiB of memory"
    yield Finding("machine", "ok", f"{usable} cores{memory}")
    here = next(folder for folder in (start.resolve(), *start.resolve().parents) if folder.exists())
    free = shutil.disk_usage(here).free / 1e9
    if free < LOW_DISK_GB:
        yield Finding(
            "disk", "broken", f"{free:.1f} GB free at {here}", f"free some: the demo needs {LOW_DISK_GB:g} GB"
        )
    else:
        yield Finding("disk", "ok", f"{free:.1f} GB free at {here}")
    if importlib.util.find_spec("torch") is not None:
        import torch

        gpu = torch.cuda.get_device_name(0) if torch.cuda.is_available() else "none; models run on the processor"
        yield Finding("gpu", "ok" if torch.cuda.is_available() else "note", gpu)


def _extras() -> Iterator[Finding]:
    for extra, (purpose, distributions) in EXTRAS.items():
        versions = {name: _version(name) for name in distributions}
        missing = [name for name, version in versions.items() if version is None]
        what = f"windlass[{extra}]"
        if missing:
            state: State = "missing" if extra in ALL else "note"
            yield Finding(what, state, f"{purpose}: no {', '.join(missing)}", f'pip install "windlass[{extra}]"')
            continue
        found = (f"{name} {version}" for name, version in versions.items())
        yield Finding(what, "ok", f"{purpose}: {', '.join(found)}")


def _version(distribution: str) -> str | None:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def _evaluation() -> Iterator[Finding]:
    """What evaluating takes beyond the package: data of benchmarks, a place to run code in, models that judge."""
    try:
        yield Finding("benchmarks", "ok", f"data in {data_folder(None)}", "`windlass eval --list` says what is there")
    except InputError as error:
        yield Finding("benchmarks", "note", error.message, error.hint)
    try:
        said = confinement()
    except WindlassError as error:
        yield Finding("sandbox", "broken", error.message, "code that models write is not run until it starts")
    else:
        state: State = "note" if said.startswith("WARNING") else "ok"
        yield Finding("sandbox", state, said.removeprefix("WARNING: "))
    keys = sorted({one.variable for one in PROVIDERS.values() if one.variable and secret(one.variable)})
    if keys:
        yield Finding("providers", "ok", f"keys for tasks and judges: {', '.join(keys)}")
    else:
        yield Finding(
            "providers", "note", "no key of a provider is set; tasks and judges run on local models",
            "set OPENAI_API_KEY or another one, or name a model of this machine: ollama:NAME, local:NAME",
        )  # fmt: skip


def _compiler() -> Finding:
    if shutil.which(os.environ.get("CXX", "g++")) is None:
        return Finding("C++ compiler", "note", "none", "with g++ installed, training is compiled and faster")
    return Finding("C++ compiler", "ok", "training can be compiled")


def _settings(config: Config) -> Iterator[Finding]:
    if config.model.base_url:
        yield _endpoint(config.model)
    else:
        yield Finding(
            "language model",
            "note",
            "none set; the assistant quotes",
            "set [model] base_url and model in windlass.toml",
        )
    host, port = config.serve.host, config.serve.port
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            yield Finding(
                "port", "note", f"{host}:{port} cannot be used ({error.strerror})", "use `windlass serve --port N`"
            )
        else:
            yield Finding("port", "ok", f"{host}:{port} is free")


def _endpoint(model: ModelConfig) -> Finding:
    import httpx2

    url = model.base_url.rstrip("/") + "/models"
    key = secret(model.api_key_env)
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    try:
        answer = httpx2.get(url, headers=headers, timeout=5.0)
    except (httpx2.HTTPError, httpx2.InvalidURL) as error:
        return Finding(
            "language model",
            "broken",
            f"{url} does not answer ({type(error).__name__})",
            "start it, or mend [model] base_url",
        )
    if answer.status_code in (401, 403):
        do = (
            f"set the environment variable {model.api_key_env}"
            if key is None
            else f"the key in {model.api_key_env} is refused"
        )
        return Finding("language model", "broken", f"{url} answers {answer.status_code}", do)
    if answer.status_code != 200:
        return Finding("language model", "note", f"{url} answers {answer.status_code}", "check [model] base_url")
    served = re.findall(r'"id"\s*:\s*"([^"]+)"', answer.text)
    if model.model not in served:
        known = ", ".join(served[:5]) or "none"
        return Finding("language model", "note", f"{url} does not list '{model.model}'", f"it lists: {known}")
    return Finding("language model", "ok", f"{model.model} at {model.base_url}")
