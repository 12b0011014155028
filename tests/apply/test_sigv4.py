"""Our signatures are botocore's for the same request, time and keys."""

from __future__ import annotations

from datetime import UTC, datetime
from urllib.parse import quote

import botocore.auth
import pytest
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from windlass.apply.providers.wire.sigv4 import SigV4
from windlass.core.errors import ConfigError

NOW = datetime(2026, 2, 3, 4, 5, 6, tzinfo=UTC)
segments = st.lists(
    st.text(st.characters(codec="utf-8", exclude_categories=["Cs"]), min_size=1, max_size=8), max_size=4
)
words = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=20)


def theirs(
    monkeypatch: pytest.MonkeyPatch, method: str, url: str, body: bytes, keys: Credentials, region: str
) -> dict[str, str]:
    monkeypatch.setattr(botocore.auth, "get_current_datetime", lambda *_: NOW.replace(tzinfo=None))
    request = AWSRequest(method, url, headers={"Content-Type": "application/json"} if body else {}, data=body)
    botocore.auth.SigV4Auth(keys, "bedrock", region).add_auth(request)
    return {name.lower(): value for name, value in request.headers.items()}


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    method=st.sampled_from(["GET", "POST"]),
    host=st.sampled_from(["https://a.example", "http://a.example:8080", "https://a.example:443", "http://[::1]:99"]),
    path=segments.filter(lambda parts: not {".", ".."} & {*parts}),
    query=st.dictionaries(words, words, max_size=3),
    body=st.binary(max_size=40),
    session=st.none() | words,
    secret=words,
)
def test_signatures(
    monkeypatch: pytest.MonkeyPatch, method: str, host: str, path: list[str], query: dict[str, str], body: bytes,
    session: str | None, secret: str,
) -> None:  # fmt: skip
    url = f"{host}/{'/'.join(quote(part, safe='') for part in path)}"
    if query:
        url += "?" + "&".join(f"{quote(name, safe='')}={quote(value, safe='')}" for name, value in query.items())
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", secret)
    monkeypatch.setenv("AWS_SESSION_TOKEN", session or "")
    wanted = theirs(monkeypatch, method, url, body, Credentials("AKIDEXAMPLE", secret, session), "eu-central-1")
    made = SigV4("bedrock", "eu-central-1", now=lambda: NOW).headers(method, url, body)
    assert {name.lower(): value for name, value in made.items()} == {
        name: value for name, value in wanted.items() if name != "content-type"
    }


def test_a_missing_key_is_named_and_no_key_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    for unset, kept in (
        ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"),
        ("AWS_SECRET_ACCESS_KEY", "AWS_ACCESS_KEY_ID"),
    ):
        monkeypatch.setenv(kept, "very-secret")
        monkeypatch.delenv(unset, raising=False)
        with pytest.raises(ConfigError, match=f"{unset} is not set") as caught:
            SigV4("bedrock", "us-east-1").headers("POST", "https://a.example/", b"{}")
        assert "very-secret" not in str(caught.value)
        assert "very-secret" not in repr(SigV4("bedrock", "us-east-1"))


def test_the_clock_is_the_worlds() -> None:
    made = SigV4("bedrock", "us-east-1", "HOME", "HOME").headers("GET", "https://a.example/", b"")["x-amz-date"]
    assert abs((datetime.now(UTC) - datetime.strptime(made, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)).total_seconds()) < 60
