"""Makes a model of this workspace of a GGUF file: config, float32 weights, tokenizer and chat template.

windlass import llama-3.2-1b-q8_0.gguf       then: windlass serve, windlass generate, windlass chat, ...
"""

# ruff: noqa: N999 (a command is named as its file)
from __future__ import annotations

import argparse
from pathlib import Path

from windlass.cli.workspace import add_option, opened


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", type=Path, help="a GGUF file")
    parser.add_argument("--name", help="name of the model (default: that of the file)")
    add_option(parser)


def run(args: argparse.Namespace) -> int:
    from windlass.build.transformer.gguf.importing import store_gguf

    with opened(args) as workspace:
        artifact, read = store_gguf(workspace, args.file, name=args.name)
    types = ", ".join(f"{count} {kind}" for kind, count in sorted(read.types.items()))
    print(
        f"{artifact.ref} · {artifact.digest[:12]} · {read.architecture} of {read.parameters:,} parameters · {types} · "
        f"tokenizer: {'yes' if read.tokenizer else 'no'}, chat template: {'yes' if read.chat_template else 'no'}"
    )
    return 0
