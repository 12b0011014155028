"""Secrets are struck out, and nothing else is."""

from __future__ import annotations

import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from windlass.core.redact import MARK, Redactor

SECRETS = [
    "sk-abcdefghijklmnopqrstuvwx",
    "sk-proj-Ab_cd-EF0123456789abcdef",
    "sk-ant-api03-abcdefghijk-lmnop",
    "ghp_0123456789abcdefghijABCDEFGHIJ012345",
    "github_pat_11ABCDEFG0123456789_abcdefghijk",
    "hf_abcdefghijklmnopqrstuvwxyzABCDEFGH",
    "gsk_abcdefghijklmnop0123456789",
    "sk_live_0123456789abcdefghij",
    "xoxb-123456789012-abcdefghijkl",
    "glpat-abcdefghij0123456789",
    "AKIAIOSFODNN7EXAMPLE",
    "AIzaSyA0123456789abcdefghijklmnopqrstuv",
    "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.abc-DEF_123",
    "-----BEGIN RSA PRIVATE KEY-----\nMIIEpAIBAAKCAQEA\n-----END RSA PRIVATE KEY-----",
    "-----BEGIN PRIVATE KEY-----\nMIIEpAIBAAKCAQEA cut off",
]

INNOCENT = [
    "The task-force-assignment was a risk-management-problem, and ask_for_permission_first helps.",
    "Basic mathematics and bearer certificates; a Bearer of bad news; basic authentication-middleware",
    "sha256 53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    "chatcmpl-9f8e7d6c5b4a3210 and 123e4567-e89b-12d3-a456-426614174000",
    "mail ann@example.org or see https://example.org/path?q=1 at 10:30@noon",
    "scikit-learn sk-learn hf_hub AKIN eyJ J A- B_ PRIVATE KEY",
    json.dumps({"gen_ai.usage.cache_read.input_tokens": 5, "some_very_long_attribute_name_that_goes_on": 1}),
]


@pytest.mark.parametrize("secret", SECRETS)
def test_known_formats_are_struck_out_of_plain_and_json_text(secret: str) -> None:
    redact = Redactor({})
    assert redact(f"my key: {secret}") == f"my key: {MARK}"
    value = {"text": f"use {secret}", "n": 1}
    struck = redact(json.dumps(value))
    assert json.loads(struck) == {"text": f"use {MARK}", "n": 1}


@pytest.mark.parametrize("text", INNOCENT)
def test_other_text_stays_as_it_is(text: str) -> None:
    assert Redactor({})(text) == text


def test_authorization_and_passwords_in_urls() -> None:
    redact = Redactor({})
    assert redact("Authorization: Bearer abc.DEF-123_456=") == f"Authorization: Bearer {MARK}"
    assert redact("authorization: bearer  abcdef123456") == f"authorization: bearer {MARK}"
    assert redact("Basic dXNlcjpwYXNzd29yZA==") == f"Basic {MARK}"
    assert redact("postgresql://ann:s3cret@db.local/x and a@b.c") == f"postgresql://{MARK}@db.local/x and a@b.c"


def test_values_of_secret_looking_variables_are_struck_out_wherever_they_stand() -> None:
    environment = {
        "ACME_API_KEY": "value of the key",
        "DB_PASSWORD": 'with "quotes" and \\ and ä',
        "GITLAB_TOKEN": "tokentoken",
        "CLIENT_SECRET": "short",
        "MONKEY": "not a secret name",
        "KEYBOARD_LAYOUT": "de-latin1-nodeadkeys",
        "HOME": "/home/ann/projects",
    }
    redact = Redactor(environment)
    text = " | ".join(environment.values())
    assert redact(text) == " | ".join(
        [MARK, MARK, MARK, "short", "not a secret name", "de-latin1-nodeadkeys", "/home/ann/projects"]
    )
    assert json.loads(redact(json.dumps(list(environment.values()), ensure_ascii=False)))[:3] == [MARK] * 3
    environment["NEW_KEY"] = "came later on"
    assert redact("came later on") == "came later on"
    redact.refresh()
    assert redact("came later on") == MARK


def test_variables_may_be_named_that_do_not_look_secret() -> None:
    assert (
        Redactor({"ACCESS": "abcdefgh", "OTHER": "ijklmnop"}, names=["ACCESS"])("abcdefgh ijklmnop")
        == f"{MARK} ijklmnop"
    )


def test_a_secret_that_contains_another_is_struck_out_whole() -> None:
    assert Redactor({"A_KEY": "abcdefgh", "B_KEY": "abcdefgh-and-more"})("abcdefgh-and-more") == MARK


@given(st.text(), st.sampled_from(SECRETS[:13]), st.text())
def test_json_text_stays_json_and_loses_the_secret(before: str, secret: str, after: str) -> None:
    text = json.dumps({"a": f"{before} {secret} {after}"}, ensure_ascii=False)
    struck = Redactor({})(text)
    assert secret not in json.loads(struck)["a"]


@pytest.mark.parametrize(
    "text",
    [
        "sk-" * 40_000,
        "-" * 100_000,
        "Bearer " * 20_000,
        "://a:" * 20_000 + "@",
        "eyJ" * 40_000,
        "-----BEGIN PRIVATE KEY-----" * 4_000,
        "A" * 100_000,
        "J" + "a" * 100_000,
        "b" * 100_000,
    ],
)
def test_no_text_makes_it_slow(text: str) -> None:
    started = time.process_time()
    Redactor({})(text)
    assert time.process_time() - started < 5, "the patterns must not backtrack without bound"
