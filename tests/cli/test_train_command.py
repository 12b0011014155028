"""`windlass train`: what a person types, and which recipe, artifacts and changes that means."""

from __future__ import annotations

import argparse

import pytest

from windlass.cli import main as cli
from windlass.cli.train import _what, configure
from windlass.core.errors import InputError
from windlass.core.workspace import Workspace


def meant(*words: str) -> tuple[str | None, dict]:
    parser = argparse.ArgumentParser()
    configure(parser)
    return _what(parser.parse_args(words))


@pytest.mark.parametrize(
    ("words", "recipe", "changes"),
    [
        ((), None, {}),
        (("decoder",), "decoder", {}),
        (("mine.toml", "--depth", "6"), "mine.toml", {"model.depth": 6}),
        (("books", "pieces"), None, {"data.corpus": "books", "data.tokenizer": "pieces"}),
        (("encoder", "books", "pieces"), "encoder", {"data.corpus": "books", "data.tokenizer": "pieces"}),
        (("encoder", "--corpus", "books"), "encoder", {"data.corpus": "books"}),
        (("--name", "x", "--seed", "3"), None, {"run.name": "x", "run.seed": 3}),
        (("decoder", "--steps", "9"), "decoder", {"schedule.steps": 9, "schedule.minutes": None}),
        (("decoder", "--minutes", "9"), "decoder", {"schedule.minutes": 9.0, "schedule.steps": None}),
    ],
)
def test_words_become_a_recipe_and_changes(words, recipe, changes):
    assert meant(*words) == (recipe, changes)


def test_too_many_names_are_refused():
    with pytest.raises(InputError, match="4 names are given"):
        meant("a", "b", "c", "d")


def test_the_shipped_recipes_are_listed(capsys):
    assert cli.main(["train", "--list"]) == 0
    shown = capsys.readouterr().out
    for name in ("decoder", "encoder", "encoder-decoder", "embedding"):
        assert f"\n{name} " in shown


def test_it_says_what_takes_long_after_the_training_and_what_comes_next(tmp_path, monkeypatch, capsys):
    pytest.importorskip("torch")
    with Workspace(tmp_path) as ws:
        for kind in ("corpus", "tokenizer", "model"):
            with ws.artifacts.build(kind, kind) as draft:
                (draft.path / "a.txt").write_text(kind)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("windlass.build.training.pretrain.pretrain", lambda ws, *_, **__: ws.artifacts.get("model"))
    monkeypatch.setattr("windlass.loop.training.baselines.comparison", lambda *_: "gzip 2.0")
    assert cli.main(["train"]) == 0
    out, err = capsys.readouterr()
    assert "gzip, xz, n-grams" in err and "gzip 2.0" in out and 'windlass generate model "Once upon"' in out
    assert cli.main(["train", "encoder", "--no-baselines"]) == 0
    out, err = capsys.readouterr()
    assert "n-grams" not in err and "Next:" not in out


def test_help_shows_how_to_begin(capsys):
    with pytest.raises(SystemExit) as ended:
        cli.main(["train", "--help"])
    assert ended.value.code == 0
    shown = capsys.readouterr().out
    assert "windlass train corpus tokenizer --depth 6" in shown
    assert "--check" in shown
