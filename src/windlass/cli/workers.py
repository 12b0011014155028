"""By how many processes, and on which device, a model is trained: what `windlass train` and `windlass tune` share."""

from __future__ import annotations

import argparse
import os
import sys


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--workers", type=int, help="train on so many processes of this machine; default: 1")
    parser.add_argument(
        "--parallel",
        choices=("ddp", "fsdp"),
        default="ddp",
        help="several workers: each a whole copy of the model (ddp) or a part of it (fsdp); default: ddp",
    )
    parser.add_argument("--device", choices=("auto", "cpu", "cuda", "mps"), default="auto")


def quieten() -> None:
    """Has the loss of another worker reported in words, not by traces of C++; to be called before torch is loaded."""
    if "RANK" in os.environ:
        os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")


def launched(args: argparse.Namespace) -> int | None:
    """The exit status of the workers, where this command is only to start them; None where it is to do the work."""
    if args.workers in (None, 1) or args.check or "RANK" in os.environ:
        return None
    from windlass.build.training.distributed.launch import launch

    return launch(args.workers, [sys.executable, "-m", "windlass", *sys.argv[1:]])
