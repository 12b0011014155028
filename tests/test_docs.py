"""Every code block of the README and of docs/ runs, in order, one folder per page.

A `python` block is a script of its own, a `sh` block is run by bash and must succeed. A block whose info string
has `skip` is not run, and must say why in the line before it. Links between pages must lead somewhere.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
FENCE = re.compile(r"^```(?P<info>[^\n`]*)\n(?P<code>.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\((?!https?://|#)([^)#\s]+)")


@dataclass(frozen=True)
class Block:
    language: str
    code: str
    line: int


def blocks(page: Path) -> list[Block]:
    text = page.read_text(encoding="utf-8")
    found = []
    for match in FENCE.finditer(text):
        language, *rest = match["info"].split() or [""]
        if language in ("python", "sh") and "skip" not in rest:
            found.append(Block(language, match["code"], text.count("\n", 0, match.start()) + 1))
    return found


def runnable() -> list[Path]:
    return [page for page in PAGES if page.exists() and blocks(page)]


@pytest.mark.slow
@pytest.mark.parametrize("page", runnable(), ids=lambda page: page.name)
def test_code_blocks_run(page: Path, tmp_path: Path) -> None:
    environment = os.environ | {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "WINDLASS_DOCS": str(ROOT / "docs"),
    }
    for block in blocks(page):
        command = [sys.executable, "-c", block.code] if block.language == "python" else ["bash", "-euc", block.code]
        answer = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=540)
        assert answer.returncode == 0, f"{page.name}:{block.line}\n{block.code}\n{answer.stdout}\n{answer.stderr}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in LINK.findall(page.read_text(encoding="utf-8")):
        assert (page.parent / target).exists(), f"{page.name} links to {target}, which is not there"
