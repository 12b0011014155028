"""API keys: what is stored, what they may do, and how far."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import httpx2 as httpx
import pytest

pytest.importorskip("uvicorn")

from serving_fakes import Echo, Letters, Speller

from windlass.core.errors import InputError, NotFound
from windlass.core.values import ChatDelta, ChatRequest, Message
from windlass.serve import keys as keys_module
from windlass.serve.app import create_app
from windlass.serve.keys import KeyLimits, Keys
from windlass.serve.run import ServerThread

NOON = 1_800_000_000.0 // 86400 * 86400 + 43200


@pytest.fixture
def keys(tmp_path: Path) -> Iterator[Keys]:
    made = Keys(tmp_path / "keys.db")
    yield made
    made.close()


def test_the_secret_is_stored_nowhere(keys: Keys, tmp_path: Path) -> None:
    key, secret = keys.add("ann", ["generate"])
    keys.close()
    stored = "".join(sqlite3.connect(tmp_path / "keys.db").iterdump())
    assert secret not in stored and secret.removeprefix("wl-") not in stored and "ann" in stored
    assert keys.find(secret) == key and keys.find(secret + "x") is None and keys.find("") is None


def test_a_revoked_and_an_expired_key_open_nothing(keys: Keys) -> None:
    _, first = keys.add("ann", ["generate"])
    second, late = keys.add("bob", ["embed"], days=1e-9)
    assert keys.revoke("ann").revoked is not None and keys.find(first) is None
    time.sleep(0.01)
    assert keys.find(late) is None and second.expires is not None
    with pytest.raises(NotFound, match="nobody"):
        keys.revoke("nobody")
    assert keys.any() and [key.name for key in keys.all()] == ["ann", "bob"]


@pytest.mark.parametrize(
    ("name", "scopes", "limits", "days"),
    [
        ("", ["generate"], {}, None),
        ("x" * 101, ["generate"], {}, None),
        ("a", [], {}, None),
        ("a", ["fly"], {}, None),
        ("a", ["embed"], {"tokens_per_day": 0}, None),
        ("a", ["embed"], {"dollars_per_month": float("inf")}, None),
        ("a", ["embed"], {}, -1.0),
    ],
)
def test_keys_that_make_no_sense(
    keys: Keys, name: str, scopes: list[str], limits: dict[str, float], days: float | None
) -> None:
    with pytest.raises(InputError):
        keys.add(name, scopes, KeyLimits(**limits), days=days)  # type: ignore[arg-type]
    assert not keys.any()


def test_a_name_is_taken_once(keys: Keys) -> None:
    keys.add("ann", ["embed"])
    with pytest.raises(InputError, match="'ann' already"):
        keys.add("ann", ["embed"])


def test_requests_per_minute_slide(keys: Keys) -> None:
    key, _ = keys.add("ann", ["generate"], KeyLimits(requests_per_minute=4))
    assert [keys.admit(key, NOON + i) for i in range(4)] == [None] * 4
    refusal = keys.admit(key, NOON + 30)
    assert refusal is not None and refusal.limit == "requests_per_minute" and refusal.wait == 30
    # a minute later half of the four are still within the last sixty seconds
    assert [keys.admit(key, NOON + 90) is None for _ in range(3)] == [True, True, False]
    assert keys.admit(key, NOON + 180) is None
    assert keys.used(key.id, "day", NOON).requests == 7


def test_tokens_and_dollars(keys: Keys) -> None:
    limits = KeyLimits(tokens_per_minute=100, tokens_per_day=150, dollars_per_month=1.0)
    key, _ = keys.add("ann", ["generate"], limits)
    keys.charge(key, 99, 0.1, NOON)
    assert keys.admit(key, NOON) is None
    keys.charge(key, 1, None, NOON)
    assert keys.admit(key, NOON).limit == "tokens_per_minute"  # type: ignore[union-attr]
    keys.charge(key, 60, 0.1, NOON + 3600)
    refused = keys.admit(key, NOON + 7200)
    assert refused is not None and refused.limit == "tokens_per_day" and refused.wait == 43200 - 7200
    keys.charge(key, 0, 0.8, NOON + 86400)
    refused = keys.admit(key, NOON + 86400)
    assert refused is not None and refused.limit == "dollars_per_month" and 0 < refused.wait < 31 * 86400
    used = keys.used(key.id, "month", NOON)
    assert used.tokens == 160 and used.dollars == pytest.approx(1.0) and used.unpriced == 1


def test_a_key_that_another_process_revokes_opens_nothing_at_once(keys: Keys, tmp_path: Path) -> None:
    _, secret = keys.add("ann", ["generate"])
    other = Keys(tmp_path / "keys.db")
    assert keys.find(secret) is not None
    other.revoke("ann")
    assert keys.find(secret) is None
    other.close()


# through the server --------------------------------------------------------------------------------------------------

CHAT = {"model": "speller", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 8}


def test_scopes_limits_and_counts_over_http(keys: Keys) -> None:
    models = {"speller": Speller(), "echo": Echo()}
    with ServerThread(create_app(models, {"letters": Letters()}, keys=keys)) as server:

        def post(path: str, body: object, secret: str = "") -> httpx.Response:
            headers = {"Authorization": f"Bearer {secret}"} if secret else {}
            return httpx.post(f"{server.url}{path}", json=body, headers=headers)

        assert post("/v1/chat/completions", CHAT).status_code == 200  # nobody made a key yet
        writer, secret = keys.add("ann", ["generate"], KeyLimits(dollars_per_month=0.5))
        _, reader = keys.add("bob", ["embed", "admin"], KeyLimits(requests_per_minute=1))
        assert post("/v1/chat/completions", CHAT).status_code == 401
        assert post("/v1/chat/completions", CHAT, "wl-wrong").status_code == 401
        assert post("/v1/chat/completions", CHAT, reader).json()["error"]["code"] == "missing_scope"
        embed = {"model": "letters", "input": "x"}
        assert post("/v1/embeddings", embed, reader).status_code == 200
        refused = post("/v1/embeddings", embed, reader)
        assert refused.status_code == 429 and 1 <= int(refused.headers["retry-after"]) <= 60
        assert refused.json()["error"]["code"] == "rate_limit_exceeded"

        # each answer costs 0.25; the third is refused
        statuses = [post("/v1/chat/completions", CHAT, secret).status_code for _ in range(3)]
        assert statuses == [200, 200, 429]
        assert post("/v1/chat/completions", CHAT, secret).json()["error"]["code"] == "insufficient_quota"
        used = keys.used(writer.id, "month")
        assert (used.requests, used.tokens, used.dollars) == (2, 2 * 10, 0.5)

        headers = {"Authorization": f"Bearer {secret}"}
        assert httpx.get(f"{server.url}/metrics", headers=headers).status_code == 403
        assert httpx.get(f"{server.url}/v1/models", headers=headers).status_code == 200
        reader_headers = {"Authorization": f"Bearer {reader}"}
        assert httpx.get(f"{server.url}/metrics", headers=reader_headers).status_code == 200
        document = httpx.get(f"{server.url}/openapi.json", headers=headers).json()
        assert document["security"] == [{"key": []}]
        assert httpx.get(f"{server.url}/health").status_code == httpx.get(f"{server.url}/ready").status_code == 200


def test_a_request_that_is_cut_off_is_charged_for_what_was_written(keys: Keys) -> None:
    from serving_fakes import Slow

    key, secret = keys.add("ann", ["generate"])
    with ServerThread(create_app({"slow": Slow(pieces=1000, pause=0.01)}, {}, keys=keys)) as server:
        body = {**CHAT, "model": "slow", "stream": True}
        headers = {"Authorization": f"Bearer {secret}"}
        with httpx.stream("POST", f"{server.url}/v1/chat/completions", json=body, headers=headers) as answer:
            lines = answer.iter_lines()
            for _ in range(20):
                next(lines)
        for _ in range(200):
            if keys.used(key.id, "day").tokens:
                break
            time.sleep(0.02)
    used = keys.used(key.id, "day")
    assert used.tokens >= 8 and used.unpriced == 1


class Shelf(Echo):
    """Says whose documents it would have searched."""

    name = "shelf"
    takes_access = True

    def stream(self, request: ChatRequest) -> Iterator[ChatDelta]:
        labels = request.extra.get("access", "none said")
        yield from super().stream(replace(request, messages=[Message("user", str(labels))], extra={}))


def test_a_key_searches_the_documents_of_its_labels_and_no_others(keys: Keys) -> None:
    shelf, echo = Shelf(), Echo()
    with ServerThread(create_app({"shelf": shelf, "echo": echo}, {}, keys=keys)) as server:

        def said(secret: str = "", model: str = "shelf", **body: object) -> tuple[object, str]:
            headers = {"Authorization": f"Bearer {secret}"} if secret else {}
            sent = {**CHAT, "model": model, **body}
            answer = httpx.post(f"{server.url}/v1/chat/completions", json=sent, headers=headers).json()
            if "error" in answer:
                return answer["error"].get("code"), answer["error"]["message"]
            return 200, answer["choices"][0]["message"]["content"]

        assert said() == (200, "none said") and said(access=["hr"]) == (200, "['hr']"), "no keys: the owner says whose"
        assert said(model="echo", access=["hr"])[1].startswith("The parameter 'access' is not supported")
        ann, first = keys.add("ann", ["generate"], access=["hr", "board"])
        _, second = keys.add("bob", ["generate"])
        assert keys.find(first) == ann and ann.access == {"hr", "board"}
        assert said(first) == (200, "['board', 'hr']") and said(second) == (200, "[]")
        assert said(first, access=["hr"]) == (200, "['hr']") and said(first, access=[]) == (200, "[]")
        code, message = said(second, access=["hr"])
        assert code == "missing_access" and message.startswith("The key 'bob' may not find documents labelled 'hr'.")
        assert said(first, access=["hr", "it"])[0] == "missing_access"
        assert said(first, model="echo")[0] == 200, "other models are told nothing of labels"


def test_keys_of_an_older_file_see_what_is_public(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "old.db") as old:
        for statement in keys_module._MIGRATIONS[0]:
            old.execute(statement)
        old.execute("PRAGMA user_version = 1")
        old.execute("INSERT INTO keys VALUES ('a', 'ann', 'h', '[\"generate\"]', '{}', 1.0, NULL, NULL)")
    made = Keys(tmp_path / "old.db")
    assert [(key.name, key.access) for key in made.all()] == [("ann", frozenset())]
    made.close()
