"""Writes all that starts a model, or what a task serves, on another machine: container, compose, Kubernetes, Helm,
systemd.

windlass deploy model ./deployment           a model
windlass deploy assistant ./deployment       the release of a task, with its index and adapter

The folder says in its README.md what each file is for. No file holds a key; the same model gives the same files.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from windlass.cli.workspace import add_option, opened


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", help="a model (name, name@version or digest), or a task with a release")
    parser.add_argument("folder", type=Path, help="where to write; new, or that of an earlier deployment")
    parser.add_argument("--image", help="name of the container image (default: windlass-NAME)")
    parser.add_argument("--port", type=int, default=8080, help="port of the server (default: 8080)")
    parser.add_argument(
        "--policy", default="auto", help="numbers of the matrices: fp32, bf16, int8, int4 or auto, the fastest of the"
        " first three that is faithful (default); memory is then that of fp32",
    )  # fmt: skip
    parser.add_argument(
        "--cached-tokens", type=int, default=16_384, metavar="N", help="of all requests together (default: 16384)"
    )
    parser.add_argument("--cores", type=int, default=2, help="processors of a copy (default: 2)")
    parser.add_argument(
        "--replicas", type=int, nargs=2, default=(2, 6), metavar=("FEWEST", "MOST"), help="in Kubernetes (default: 2 6)"
    )
    parser.add_argument(
        "--queue", type=int, default=4, metavar="N", help="requests per copy before another one starts (default: 4)"
    )
    add_option(parser)


def run(args: argparse.Namespace) -> int:
    from windlass.serve.deploy.bundle import find
    from windlass.serve.deploy.writing import Settings, deploy

    settings = Settings(
        args.image, args.port, args.policy, args.cached_tokens, args.cores, tuple(args.replicas), args.queue
    )
    with opened(args) as workspace:
        made = deploy(workspace, find(workspace, args.name), args.folder, settings)
    for name in made.files:
        print(f"{made.folder / name}")
    print(f"{made.folder / 'workspace'} · {made.bytes / 1e6:.1f} MB")
    if made.need is not None:
        mib = [f"{count / 2**20:,.0f} MiB" for count in (made.need.total, made.need.loading)]
        print(f"memory: {mib[0]}, {mib[1]} while loading (estimated)")
    for note in made.notes:
        print(note)
    return 0
