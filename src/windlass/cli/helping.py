"""Help in two sizes: `--help` shows what is mostly needed, `--help-all` every option."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any


class Rare(str):
    """Help of an option that only `--help-all` shows."""

    __slots__ = ()


class _Full(argparse.RawDescriptionHelpFormatter):
    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=28)


class _Brief(_Full):
    def add_argument(self, action: argparse.Action) -> None:
        if not isinstance(action.help, Rare):
            super().add_argument(action)


class _All(argparse.Action):
    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: str | Sequence[Any] | None,
        option_string: str | None = None,
    ) -> None:
        parser.formatter_class = _Full
        parser.print_help()
        parser.exit()


def in_two_sizes(parser: argparse.ArgumentParser, usage: str) -> None:
    """From now on `--help` leaves out the options whose help is `Rare`. `usage`: in place of a list of all of them."""
    parser.usage = usage
    parser.formatter_class = _Brief
    parser.add_argument("--help-all", action=_All, nargs=0, help="show every option")
