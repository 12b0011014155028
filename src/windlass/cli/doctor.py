"""Says what is installed, what is missing, which endpoints answer, and what to do about each.

Exits with 1 when something is broken; a missing extra or an empty setting is no fault.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from windlass.loop.doctor import examine

MARKS = {"ok": "ok", "note": "-", "missing": "missing", "broken": "BROKEN"}
WIDTH = 21


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", nargs="?", type=Path, default=Path(), help="default: the current folder")


def run(args: argparse.Namespace) -> int:
    broken = False
    for finding in examine(args.folder):
        broken |= finding.state == "broken"
        print(f"{MARKS[finding.state]:<8}{finding.what:<{WIDTH}}{finding.detail}")
        if finding.do:
            print(f"{'':<8}{'':<{WIDTH}}→ {finding.do}")
    return int(broken)
