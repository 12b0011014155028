"""Makes an empty workspace (the folder .windlass/) and a commented windlass.toml in this folder."""

from __future__ import annotations

import argparse
from pathlib import Path

from windlass.core.config import FILE
from windlass.core.files import atomic_write
from windlass.core.workspace import Workspace

TEMPLATE = """\
# Settings of this windlass workspace. Every key is optional; an unknown key is an error.

# A language model to write answers, by any OpenAI-compatible endpoint. Without one, answers are quotations.
# [model]
# base_url = "http://127.0.0.1:11434/v1"
# model = "qwen3:4b"
# api_key_env = "OPENAI_API_KEY"   # the name of the variable; a key never stands in a file

# [serve]
# host = "127.0.0.1"
# port = 8080
"""


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", nargs="?", type=Path, default=Path(), help="default: the current folder")


def run(args: argparse.Namespace) -> int:
    with Workspace(args.folder) as workspace:
        settings = workspace.home / FILE
        if not settings.exists():
            with atomic_write(settings, "w") as file:
                file.write(TEMPLATE)
        print(f"Workspace {workspace.root}, settings {settings}.")
        print("Next: `windlass ingest FOLDER` to ask your own documents, `windlass corpus FOLDER` to train on them,")
        print("or `windlass demo` to see both.")
    return 0
