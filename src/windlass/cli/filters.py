"""The options --where and --as of commands that search: which documents, and who asks."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from windlass.core.errors import InputError


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--where",
        action="extend",
        nargs="+",
        default=[],
        metavar="KEY=VALUE",
        help="only documents with this metadata; of several values of a key, any",
    )
    parser.add_argument(
        "--as",
        dest="access",
        action="extend",
        nargs="+",
        default=[],
        metavar="LABEL",
        help="the access labels of who asks; without them only public documents are found",
    )


def where(args: argparse.Namespace) -> dict[str, list[str]] | None:
    """Key -> allowed values; None without a filter."""
    return pairs(args.where, "--where") or None


def pairs(texts: Sequence[str], option: str) -> dict[str, list[str]]:
    """KEY=VALUE, KEY=VALUE … by key."""
    found: dict[str, list[str]] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals or not key.strip():
            raise InputError(f"{option} takes KEY=VALUE, not '{text}'.")
        found.setdefault(key.strip(), []).append(value)
    return found
