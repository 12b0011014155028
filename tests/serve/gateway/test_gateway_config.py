"""The gateway's file: what is wrong in it is said by name, before the first request."""

from __future__ import annotations

from pathlib import Path

import pytest

from windlass.cli.main import main
from windlass.core.errors import ConfigError
from windlass.serve.gateway.config import load_gateway

GOOD = """
[providers.one]
base_url = "http://127.0.0.1:1/v1"
api_key_env = "GATEWAY_TEST_KEY"

[routes.m]
targets = [{ provider = "one", model = "small", weight = 2, price = { input = 1, output = 2 } }]
fallbacks = [{ provider = "one" }]
balance = "least_busy"

[routes."gpt-*"]
targets = [{ provider = "one" }]
"""


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GATEWAY_TEST_KEY", "sk-1234567890")


def load(folder: Path, text: str) -> object:
    path = folder / "gateway.toml"
    path.write_text(text, encoding="utf-8")
    return load_gateway(path)


def test_a_good_file_is_read_and_checked_by_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    load(tmp_path, GOOD)
    assert main(["gateway", str(tmp_path / "gateway.toml"), "--check"]) == 0
    assert "1 providers, 2 routes, nothing wrong" in capsys.readouterr().out


def test_the_digest_names_what_the_file_says(tmp_path: Path) -> None:
    one, same, other = (
        load(tmp_path, t) for t in (GOOD, f"# a comment\n{GOOD}", GOOD.replace("weight = 2", "weight = 3"))
    )
    assert one.digest == same.digest != other.digest  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('balance = "least_busy"', 'balance = "random"', "routes.m.balance"),
        ("fallbacks", "fallback", "Did you mean 'routes.m.fallbacks'"),
        ('{ provider = "one" }]\nbalance', '{ provider = "two" }]\nbalance', "leads to provider 'two'; known are: one"),
        ("weight = 2", "weight = 0", "weight is 0"),
        ("weight = 2", 'weight = "2"', "weight"),
        ('"gpt-*"', '"*-gpt"', r"has a \* that is not at its end"),
        ("GATEWAY_TEST_KEY", "GATEWAY_TEST_UNSET", "GATEWAY_TEST_UNSET of provider 'one' is empty"),
        ("[providers.one]", "[providers.one]\nkind = 'other'", "providers.one.kind"),
        ("[providers.one]", "[providers.one]\nidle_s = 0", "idle_s is 0"),
        ("[routes.m]", "[routes.m]\nfirst_byte_s = -1", "routes.m: first_byte_s is -1"),
        ("[routes.m]", "[routes.m]\nfirst_bytes = 1", "Did you mean 'routes.m.first_byte_s'"),
        ("[providers.one]", "[providers.one]\nheaders = { 'X-A' = \"a\\r\\nb\" }", "headers"),
        ("[routes.m]\ntargets", "[routes.m]\ntargets = []\nfallbacks2", "Did you mean"),
        ("[providers.one]", "[providers.one", "not valid TOML"),
    ],
)
def test_mistakes_are_named(tmp_path: Path, old: str, new: str, said: str) -> None:
    assert old in GOOD
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, GOOD.replace(old, new))
    import re

    assert re.search(said, str(caught.value)), str(caught.value)


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="missing routes"):
        load(tmp_path, GOOD.partition("[routes.m]")[0])
    with pytest.raises(ConfigError, match="there is no route"):
        load(tmp_path, GOOD.partition("[routes.m]")[0] + "[routes]\n")
    with pytest.raises(ConfigError, match="cannot be read"):
        load_gateway(tmp_path / "absent.toml")


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ('ca_file = "absent.pem"', "ca_file 'absent.pem' of provider 'one'"),
        ('ca_file = "gateway.toml"', "ca_file 'gateway.toml' of provider 'one'"),
        ('proxy = "socks5://127.0.0.1:1080"', "the proxy of provider 'one' is 'socks5://127.0.0.1:1080'"),
    ],
)
def test_certificates_and_proxies_are_checked_by_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], more: str, said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "gateway.toml").write_text(GOOD.replace("http://127.0.0.1:1/v1", f'https://x/v1"\n{more} # "'))
    assert main(["gateway", "gateway.toml", "--check"]) == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    "url", ["ftp://x/v1", "127.0.0.1:8000", "http://", "http://x:99999/v1", "http://u:p@x/v1", "http://x/v1?a=b"]
)
def test_addresses_are_checked(tmp_path: Path, url: str) -> None:
    pytest.importorskip("starlette")
    from windlass.serve.gateway.gateway import Gateway

    with pytest.raises(ConfigError, match="base_url"):
        Gateway(load(tmp_path, GOOD.replace("http://127.0.0.1:1/v1", url)))  # type: ignore[arg-type]
