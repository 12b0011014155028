"""What documents and help say of recipes holds: each is there and opens, and each that is there is told of."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from windlass.build.adapt.opening import open_inputs
from windlass.build.adapt.recipe import TUNING
from windlass.cli import tune
from windlass.core.errors import NotFound
from windlass.core.workspace import Workspace

ROOT = Path(__file__).parents[3]
PAGES = {page.name: page.read_text(encoding="utf-8") for page in (ROOT / "README.md", *(ROOT / "docs").glob("*.md"))}
TOLD = {**PAGES, "--help": str(tune.__doc__)}


@pytest.mark.parametrize("page", [name for name, text in TOLD.items() if "windlass tune " in text])
def test_each_recipe_of_a_page_is_there(page: str) -> None:
    named = set(re.findall(r"windlass tune ([a-z][a-z0-9-]*)(?![a-z0-9.-])", TOLD[page]))
    assert named <= set(TUNING.shipped())
    for setting in re.findall(r"recipe `([a-z0-9-]+)`", TOLD[page]):
        assert setting in TUNING.shipped()


@pytest.mark.parametrize("recipe", sorted(TUNING.shipped()))
def test_each_recipe_opens_says_what_it_is_and_is_told_of(recipe: str) -> None:
    settings = TUNING.read(recipe, {"data.replay": "corpus"} if recipe == "continue" else {})
    assert settings.run.name and len(TUNING.shipped()[recipe]) > 20
    named = rf"`{recipe}`|windlass tune {recipe}(?![a-z0-9-])"
    assert any(re.search(named, PAGES[page]) for page in ("tune.md", "encoders.md", "rl.md"))


@pytest.mark.parametrize(
    ("changes", "option"),
    [({}, "--base"), ({"model.base": "all-MiniLM-L6-v2"}, "--data"),
     ({"model.base": "all-MiniLM-L6-v2", "data.dataset": __file__, "objective.kind": "distil",
       "objective.teacher": "nobody"}, "--set objective.teacher=NAME")],
)  # fmt: skip
def test_the_first_error_says_which_option_is_meant(tmp_path: Path, changes: dict[str, str], option: str) -> None:
    with Workspace(tmp_path) as ws, pytest.raises(NotFound) as missing:
        open_inputs(ws, TUNING.read(None, changes))
    assert f"Name one with {option};" in str(missing.value.hint)
