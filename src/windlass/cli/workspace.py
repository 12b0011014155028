"""The option --workspace, the same for every command that works in one."""

from __future__ import annotations

import argparse
from pathlib import Path

from windlass.core.workspace import Workspace, find_workspace


def add_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--workspace",
        type=Path,
        metavar="FOLDER",
        help="where to look, from there upwards; default: the current folder",
    )


def opened(args: argparse.Namespace) -> Workspace:
    return find_workspace(args.workspace)
