"""`windlass.toml`: every wrong key and value is named, every right one understood."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytest

from windlass.core.config import Config, ModelConfig, load_config, secret, strict
from windlass.core.errors import ConfigError
from windlass.core.pricing import Price


@dataclass(frozen=True)
class Inner:
    size: int
    name: str = "x"


@dataclass(frozen=True)
class Everything:
    inner: Inner = field(default_factory=lambda: Inner(1))
    mode: Literal["a", "b", 3] = "a"
    many: tuple[Inner, ...] = ()
    pair: tuple[int, str] = (0, "")
    words: Sequence[str] = ()
    numbers: list[float] = field(default_factory=list)
    table: dict[str, Inner] = field(default_factory=dict)
    free: Mapping[str, Any] = field(default_factory=dict)
    where: Path = Path()
    perhaps: int | None = None
    either: int | str = 0
    ratio: int | float = 0
    flag: bool = False
    share: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.share <= 1:
            raise ValueError("share must lie between 0 and 1")


def write(folder: Path, text: str) -> Path:
    (folder / "windlass.toml").write_text(text, encoding="utf-8")
    return folder


def test_no_file_means_the_defaults(tmp_path: Path) -> None:
    assert load_config(tmp_path) == Config()


def test_a_whole_file(tmp_path: Path) -> None:
    text = """
    [model]
    base_url = "http://127.0.0.1:11434/v1"
    timeout_s = 30
    [serve]
    port = 9000
    [prices."mine"]
    input = 1
    output = 2.5
    """
    config = load_config(write(tmp_path, text))
    assert config.model == ModelConfig(base_url="http://127.0.0.1:11434/v1", timeout_s=30.0)
    assert isinstance(config.model.timeout_s, float)
    assert config.serve.port == 9000
    assert config.prices == {"mine": Price(1.0, 2.5)}


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ("[modle]\n", "unknown key 'modle'", "Did you mean 'model'?"),
        ("[model]\nbase_ulr = 'x'", r"unknown key 'model\.base_ulr'", "Did you mean 'model.base_url'?"),
        ("[serve]\nzzz = 1", r"unknown key 'serve\.zzz'", "Known keys here: host, port."),
        ("[serve]\nport = '80'", r"'serve\.port' is '80', but must be a whole number", ""),
        ("[serve]\nport = 80.0", r"'serve\.port' is 80\.0, but must be a whole number", ""),
        ("[serve]\nport = true", r"'serve\.port' is True, but must be a whole number", ""),
        ("[model]\ntimeout_s = true", r"'model\.timeout_s' is True, but must be a number", ""),
        ("[model]\nmodel = 3", r"'model\.model' is 3, but must be text", ""),
        ("serve = 3", "'serve' must be a table", r"Write [serve] and its keys below it."),
        ("[[serve]]\nport = 3", "'serve' must be a table", ""),
        ("[prices.x]\noutput = 1.0", r"missing prices\.x\.input", ""),
        ("[prices.x]\ninput = 1\ncolour = 'red'", r"unknown key 'prices\.x\.colour'", ""),
        ("prices = 1", "'prices' must be a table", ""),
        ("[serve\n", "is not valid TOML", "Mend the line"),
        ("[serve]\nport = 1\nport = 2", "is not valid TOML", ""),
    ],
)
def test_mistakes_are_named(tmp_path: Path, text: str, message: str, hint: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        load_config(write(tmp_path, text))
    assert str(tmp_path / "windlass.toml") in caught.value.message
    assert hint in caught.value.hint


def test_a_file_that_is_not_utf8_or_cannot_be_read(tmp_path: Path) -> None:
    path = tmp_path / "windlass.toml"
    path.write_bytes(b"[model]\nmodel = '\xff'")
    with pytest.raises(ConfigError, match="is not valid TOML"):
        load_config(tmp_path)
    path.unlink()
    path.mkdir()
    with pytest.raises(ConfigError, match="cannot be read: Is a directory"):
        load_config(tmp_path)
    path.rmdir()
    path.write_text("")
    path.chmod(0)
    if os.access(path, os.R_OK):
        pytest.skip("this user (root) reads every file")
    with pytest.raises(ConfigError, match="cannot be read: Permission denied"):
        load_config(tmp_path)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"inner": {"size": 3}}, {"inner": Inner(3)}),
        ({"mode": "b"}, {"mode": "b"}),
        ({"mode": 3}, {"mode": 3}),
        ({"many": [{"size": 1}, {"size": 2, "name": "y"}]}, {"many": (Inner(1), Inner(2, "y"))}),
        ({"pair": [1, "a"]}, {"pair": (1, "a")}),
        ({"words": ["a", "b"]}, {"words": ("a", "b")}),
        ({"numbers": [1, 2.5]}, {"numbers": [1.0, 2.5]}),
        ({"table": {"a": {"size": 1}}}, {"table": {"a": Inner(1)}}),
        ({"free": {"x": [1, {"y": None}]}}, {"free": {"x": [1, {"y": None}]}}),
        ({"where": "a/b"}, {"where": Path("a/b")}),
        ({"perhaps": 3}, {"perhaps": 3}),
        ({"perhaps": None}, {"perhaps": None}),
        ({"either": "x"}, {"either": "x"}),
        ({"either": 1}, {"either": 1}),
        ({"flag": True}, {"flag": True}),
        ({"share": 1}, {"share": 1.0}),
    ],
)
def test_kinds_that_are_understood(values: dict[str, Any], expected: dict[str, Any]) -> None:
    assert strict(Everything, values, where="x") == Everything(**expected)


def test_a_whole_number_stays_one_where_both_are_allowed() -> None:
    assert type(strict(Everything, {"ratio": 3}, where="x").ratio) is int
    assert type(strict(Everything, {"ratio": 3.0}, where="x").ratio) is float


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"mode": "c"}, r"'mode' is 'c'"),
        ({"mode": 3.0}, r"'mode' is 3\.0"),
        ({"many": [{"size": 1}, {"size": "x"}]}, r"'many\[1\]\.size' is 'x', but must be a whole number"),
        ({"many": [{"sise": 1}]}, r"unknown key 'many\[0\]\.sise'"),
        ({"many": {"size": 1}}, "'many' is .* but must be a list"),
        ({"pair": [1]}, "'pair' must have 2 items, but has 1"),
        ({"pair": ["a", "b"]}, r"'pair\[0\]' is 'a'"),
        ({"words": "ab"}, "'words' is 'ab', but must be a list"),
        ({"words": [1]}, r"'words\[0\]' is 1, but must be text"),
        ({"table": {"a": 3}}, r"'table\.a' must be a table"),
        ({"where": 3}, "'where' is 3, but must be a path"),
        ({"perhaps": "x"}, "'perhaps' is 'x', but must be a whole number"),
        ({"either": 1.5}, r"'either' is 1\.5, but must be a whole number or text"),
        ({"flag": 1}, "'flag' is 1, but must be true or false"),
        ({"share": 2}, "settings: share must lie between 0 and 1"),
        ({"inner": {}}, r"missing inner\.size"),
    ],
)
def test_kinds_that_do_not_fit(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        strict(Everything, values, where="recipe.toml")
    assert caught.value.message.startswith("recipe.toml: ")


def test_secrets_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("A_KEY", "x")
    monkeypatch.setenv("B_KEY", "")
    assert (secret("A_KEY"), secret("B_KEY"), secret("C_KEY_THAT_IS_NOT_SET")) == ("x", None, None)
