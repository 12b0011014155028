"""The files of a deployment. The same plan gives the same bytes; no file ever holds a key."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from windlass.build.transformer.hf import load_config
from windlass.core.errors import InputError, MissingExtra
from windlass.core.files import atomic_write
from windlass.core.version import __version__
from windlass.core.workspace import Workspace
from windlass.serve.deploy.bundle import Cargo, pack
from windlass.serve.engine.memory import Need, need_of
from windlass.serve.run import DRAIN_SECONDS
from windlass.serve.work import IN_PROGRESS

TEMPLATES = Path(__file__).parent / "templates"
BUNDLE = "workspace"
USER = 10_001
CHART = {
    "image": "image", "fewest": "replicas.fewest", "most": "replicas.most", "queue": "queue", "cores": "cores",
    "memory": "memory", "memory_limit": "memoryLimit",
}  # fmt: skip
"""What the chart leaves open, and what it calls that. Its templates are the manifests with these in place of values."""
_LABEL = re.compile(r"[^a-z0-9]+")


@dataclass(frozen=True, slots=True)
class Settings:
    """What the person decides."""

    image: str | None = None
    """Name of the container image; None: windlass-NAME."""
    port: int = 8080
    policy: str = "auto"
    cached_tokens: int = 16_384
    """Tokens of all requests in progress together."""
    cores: int = 2
    replicas: tuple[int, int] = (2, 6)
    """Fewest and most copies in Kubernetes."""
    queue: int = 4
    """Requests in progress per copy beyond which another copy is started."""

    def __post_init__(self) -> None:
        fewest, most = self.replicas
        if not 1 <= fewest <= most <= 1000:
            raise InputError(f"--replicas is {fewest}..{most}, but must rise from at least 1 to at most 1000.")
        if not 1024 <= self.port <= 65535:
            raise InputError(f"--port is {self.port}; the server runs without rights, so 1024 to 65535.")
        for name in ("cached_tokens", "cores", "queue"):
            if getattr(self, name) < 1:
                raise InputError(f"--{name.replace('_', '-')} is {getattr(self, name)}, but must be at least 1.")
        if self.image is not None and not re.fullmatch(r"[a-z0-9][a-z0-9._/:@-]{0,254}", self.image):
            raise InputError(f"'{self.image}' is no name of an image.", "For example registry.example/team/model:1")


@dataclass(frozen=True, slots=True)
class Deployed:
    """What was written."""

    folder: Path
    files: tuple[str, ...]
    need: Need | None
    """None for a release, whose language model runs elsewhere."""
    bytes: int
    """Of the bundled workspace."""
    notes: tuple[str, ...]


def deploy(ws: Workspace, cargo: Cargo, folder: Path, settings: Settings) -> Deployed:
    """Writes the deployment of a model or release into `folder`.

    Raises `InputError` when the folder holds something else, or when the model cannot be served.
    """
    mark = folder / "Dockerfile"
    if folder.is_dir() and any(folder.iterdir()) and not mark.is_file():
        raise InputError(f"{folder} holds other files.", "Name a new folder, or one of an earlier deployment.")
    values = _values(cargo, settings)
    folder.mkdir(parents=True, exist_ok=True)
    size = pack(ws, cargo, folder / BUNDLE)
    files = _files(values)
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(folder / name, "w") as file:
            file.write(text)
    return Deployed(folder, tuple(files), values["need"], size, tuple(values["notes"]))


def _files(values: Mapping[str, Any]) -> dict[str, str]:
    """Text by path."""
    chart = f"helm/windlass-{values['label']}/"
    left_open = {name: f"{{{{ .Values.{path} }}}}" for name, path in CHART.items()}
    files = {}
    for template in sorted(path.relative_to(TEMPLATES).as_posix() for path in TEMPLATES.rglob("*.j2")):
        name = template.removesuffix(".j2").replace("helm/", chart)
        if name.startswith("vllm/") and not values["vllm"]:
            continue
        files[name] = _render(template, values)
        if name.startswith("kubernetes/") and "kustomization" not in name:
            files[name.replace("kubernetes/", f"{chart}templates/")] = _render(template, {**values, **left_open})
    return dict(sorted(files.items()))


def _values(cargo: Cargo, settings: Settings) -> dict[str, Any]:
    """All that the templates say."""
    label = _LABEL.sub("-", cargo.name.lower())[:40].strip("-") or "model"
    need, most, context, vllm, notes = None, 0, None, False, []
    engine: list[str] = []  # options of `windlass serve`: what the memory was estimated for
    if cargo.task is None:
        config = load_config(cargo.artifact.path)
        need = need_of(config, policy=settings.policy, kv_tokens=settings.cached_tokens)
        plain = need_of(config, policy="fp32", kv_tokens=settings.cached_tokens)
        most = max(need.loading, plain.loading)  # a processor may not be able to do what is asked for
        context = config.context
        if not config.decoder_layers:
            engine = ["--policy", settings.policy, "--kv-tokens", str(settings.cached_tokens)]
        family = _family(cargo)
        vllm = family != "windlass" and config.causal and not config.decoder_layers
        if not vllm:
            notes.append(f"No vLLM files: vLLM does not know models of the family '{family}'.")
    else:
        notes.append("No vLLM files: a release is more than one model.")
    memory = _mebibytes(need.total if need else 1 << 30)
    limit = _mebibytes(most + (256 << 20) if need else 2 << 30)
    return {
        "name": cargo.name,
        "label": label,
        "ref": cargo.artifact.ref,
        "digest": cargo.artifact.digest,
        "task": cargo.task,
        "image": settings.image or f"windlass-{label}",
        "version": __version__,
        "extras": "build,serve" if cargo.task is None else "build,serve,rag",
        "bundle": BUNDLE,
        "user": USER,
        "port": settings.port,
        "cores": settings.cores,
        "memory": f"{memory}Mi",
        "memory_limit": f"{limit}Mi",
        "limit_mib": limit,
        "fewest": settings.replicas[0],
        "most": settings.replicas[1],
        "queue": settings.queue,
        "queue_metric": IN_PROGRESS,
        "drain": int(DRAIN_SECONDS),
        "need": need,
        "settings": settings,
        "context": context,
        "engine": engine,
        "model_path": f"{BUNDLE}/.windlass/artifacts/{cargo.artifact.digest}",
        "vllm": vllm,
        "notes": notes,
    }


def _mebibytes(count: int) -> int:
    """Rounded up to 64, as a quantity of Kubernetes reads well."""
    return math.ceil(count / (64 << 20)) * 64


def _family(cargo: Cargo) -> str:
    return str(json.loads((cargo.artifact.path / "config.json").read_text(encoding="utf-8"))["model_type"])


def _render(template: str, values: Mapping[str, Any]) -> str:
    try:
        import jinja2
    except ImportError as missing:
        raise MissingExtra("Writing a deployment", "serve") from missing
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        undefined=jinja2.StrictUndefined,
        keep_trailing_newline=True,
        trim_blocks=True,
        lstrip_blocks=True,
        autoescape=False,  # nothing here is HTML; the one free text, the name, stands in JSON quotes
    )
    environment.filters["mib"] = lambda count: f"{count / (1 << 20):,.0f} MiB"
    return environment.get_template(template).render(values)
