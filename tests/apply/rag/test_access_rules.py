"""Which labels a path gets: a rule that is missed would show a document to everybody."""

from __future__ import annotations

from pathlib import Path

import pytest

from windlass.apply.rag.ingest.access import AccessRules, fits
from windlass.core.errors import InputError


@pytest.mark.parametrize(
    ("pattern", "source", "expected"),
    [
        ("hr/**", "hr/pay.md", True),
        ("hr/**", "docs/hr/2026/pay.md", True),
        ("hr/**", "three/pay.md", False),
        ("hr/**", "hr.md", False),
        ("hr", "docs/hr/pay.md", True),
        ("*.xlsx", "finance/2026/plan.xlsx", True),
        ("finance/*.xlsx", "finance/2026/plan.xlsx", False),
        ("finance/**/*.xlsx", "finance/2026/plan.xlsx", True),
        ("finance/**/*.xlsx", "finance/plan.xlsx", True),
        ("plan?.md", "plan7.md", True),
        ("plan?.md", "plan/.md", False),
        ("/srv/hr/**", "/srv/hr/pay.md", True),
        ("/srv/hr/**", "backup/srv/hr/pay.md", False),
        ("a+b (1).md", "x/a+b (1).md", True),
        ("**", "anything/at all", True),
        ("https://intra.example/**", "https://intra.example/a?b#c", True),
    ],
)
def test_patterns(pattern: str, source: str, expected: bool) -> None:
    assert fits(pattern, source) is expected


def test_the_first_pattern_that_fits_decides(tmp_path: Path) -> None:
    file = tmp_path / "access.toml"
    file.write_text('"hr/open.md" = []\n"hr/**" = ["hr", "board"]\n"**" = "staff"\n')
    rules = AccessRules.read(file)
    assert rules.decide("hr/open.md") == ("hr/open.md", ())
    assert rules.decide("hr/pay.md") == ("hr/**", ("board", "hr"))
    assert rules.decide("notes.md") == ("**", ("staff",))
    assert AccessRules().decide("notes.md") is None


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('"hr" = 3', "'hr' is 3"),
        ('"hr" = ["a", " "]', "must be a list of labels"),
        ('[hr]\nlabels = ["a"]', "must be a list of labels"),
        ('"hr = ', "not valid TOML"),
        ("", "no pattern"),
    ],
)
def test_mistakes_never_make_anything_public(tmp_path: Path, text: str, says: str) -> None:
    file = tmp_path / "access.toml"
    file.write_text(text)
    with pytest.raises(InputError, match=says):
        AccessRules.read(file)
    with pytest.raises(InputError, match=r"gone\.toml cannot be read"):
        AccessRules.read(tmp_path / "gone.toml")
