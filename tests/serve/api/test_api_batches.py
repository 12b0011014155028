"""Files and batches through the official client, and through `kill -9`."""

from __future__ import annotations

import contextlib
import io
import json
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest

openai = pytest.importorskip("openai")
pytest.importorskip("uvicorn")
pytest.importorskip("python_multipart")
HERE = Path(__file__).parents[1]
sys.path.insert(0, str(HERE))

from serving_fakes import Echo, Letters, Slow  # noqa: E402

from windlass.serve import batches  # noqa: E402
from windlass.serve.app import create_app  # noqa: E402
from windlass.serve.keys import KeyLimits, Keys  # noqa: E402
from windlass.serve.limits import Limits  # noqa: E402
from windlass.serve.run import ServerThread  # noqa: E402

CHAT = "/v1/chat/completions"


def line(i: int, text: str, **fields: Any) -> dict[str, Any]:
    body = {"model": "echo", "messages": [{"role": "user", "content": text}]} | fields
    return {"custom_id": f"r{i}", "method": "POST", "url": CHAT, "body": body}


def jsonl(*lines: Any) -> io.BytesIO:
    return io.BytesIO("".join(json.dumps(one) + "\n" for one in lines).encode())


@pytest.fixture
def client(tmp_path: Path) -> Iterator[Any]:
    models = {"echo": Echo(), "slow": Slow(pieces=20, pause=0.02)}
    app = create_app(models, {"letters": Letters()}, folder=tmp_path, limits=Limits(file_bytes=1_000_000))
    with (
        ServerThread(app) as server,
        openai.OpenAI(base_url=f"{server.url}/v1", api_key="unused", max_retries=0) as made,
    ):
        yield made


def start(client: Any, *lines: Any, endpoint: str = CHAT) -> Any:
    file = client.files.create(file=("in.jsonl", jsonl(*lines)), purpose="batch")
    return client.batches.create(input_file_id=file.id, endpoint=endpoint, completion_window="24h")


def ended(client: Any, batch: Any) -> Any:
    for _ in range(500):
        batch = client.batches.retrieve(batch.id)
        if batch.status in ("completed", "cancelled", "expired"):
            return batch
        time.sleep(0.02)
    raise AssertionError(batch)


def lines_of(client: Any, file: str | None) -> dict[str, Any]:
    if file is None:
        return {}
    return {one["custom_id"]: one for one in map(json.loads, client.files.content(file).text.splitlines())}


def test_a_batch_from_its_file_to_its_answers(client: Any) -> None:
    batch = start(
        client, *(line(i, f"number {i}") for i in range(20)), line(20, "x", colour=1), line(21, "x", model="?")
    )
    batch = ended(client, batch)
    assert batch.status == "completed"
    assert (batch.request_counts.total, batch.request_counts.completed, batch.request_counts.failed) == (22, 20, 2)
    answers, errors = lines_of(client, batch.output_file_id), lines_of(client, batch.error_file_id)
    said = {k: v["response"]["body"]["choices"][0]["message"]["content"] for k, v in answers.items()}
    assert said == {f"r{i}": f"number {i}" for i in range(20)}
    assert errors["r20"]["response"]["status_code"] == 400 and errors["r21"]["response"]["status_code"] == 404
    assert errors["r20"]["response"]["body"]["error"]["param"] == "colour"
    assert [one.id for one in client.batches.list().data] == [batch.id]


def test_other_endpoints(client: Any) -> None:
    embed = {"custom_id": "e", "method": "POST", "url": "/v1/embeddings", "body": {"model": "letters", "input": "aa"}}
    batch = ended(client, start(client, embed, endpoint="/v1/embeddings"))
    (answer,) = lines_of(client, batch.output_file_id).values()
    assert len(answer["response"]["body"]["data"][0]["embedding"]) == 4


def test_files(client: Any) -> None:
    made = client.files.create(file=("in.jsonl", jsonl(line(0, "ä"))), purpose="batch")
    assert client.files.retrieve(made.id) == made and made.filename == "in.jsonl"
    assert json.loads(client.files.content(made.id).text) == line(0, "ä")
    assert [one.id for one in client.files.list()] == [made.id]
    assert client.files.delete(made.id).deleted
    with pytest.raises(openai.NotFoundError, match=made.id):
        client.files.retrieve(made.id)
    with pytest.raises(openai.NotFoundError):
        client.files.retrieve("../../etc/passwd")


@pytest.mark.parametrize(
    ("lines", "match"),
    [
        (b"", "holds no request"),
        (b"{}\n", "Line 1: custom_id"),
        (json.dumps(line(0, "x")).encode() + b"\n\xff\n", "Line 2 is not JSON"),
        (2 * (json.dumps(line(0, "x")).encode() + b"\n"), "Line 2: custom_id 'r0' was used before"),
        (json.dumps(line(0, "x") | {"url": "/v1/embeddings"}).encode(), "Line 1: url must be"),
        (json.dumps(line(0, "x") | {"method": "GET"}).encode(), "Line 1: method"),
        (json.dumps(line(0, "x", stream=True)).encode(), "cannot be streamed"),
        (json.dumps(line(0, "x") | {"colour": 1}).encode(), "'colour'"),
        (b"[" * 100_000, "Line 1 is not JSON"),
    ],
)
def test_a_file_that_is_no_batch(client: Any, lines: bytes, match: str) -> None:
    file = client.files.create(file=("in.jsonl", io.BytesIO(lines)), purpose="batch")
    with pytest.raises(openai.BadRequestError, match=match):
        client.batches.create(input_file_id=file.id, endpoint=CHAT, completion_window="24h")


def test_uploads_that_are_refused(client: Any) -> None:
    with pytest.raises(openai.BadRequestError, match="purpose"):
        client.files.create(file=("in.jsonl", b"{}"), purpose="fine-tune")
    with pytest.raises((openai.APIStatusError, openai.APIConnectionError)) as caught:
        client.files.create(file=("in.jsonl", b"x" * 2_000_000), purpose="batch")
    assert getattr(caught.value, "status_code", 413) == 413
    url = str(client.base_url) + "files"
    form = {"Content-Type": "multipart/form-data"}
    for headers, content in ((form, b"x"), ({"Content-Type": "multipart/form-data; boundary=a"}, b"--b\r\n\r\n")):
        assert httpx.post(url, content=content, headers=headers).status_code == 400
    assert httpx.post(url, json={}).status_code == 415
    assert httpx.post(url, data={"purpose": "batch"}, files={"other": b"x"}).status_code == 400


def test_a_batch_that_is_cancelled_keeps_what_was_answered(client: Any) -> None:
    batch = start(client, *(line(i, "x", model="slow") for i in range(100)))
    while client.batches.retrieve(batch.id).request_counts.completed == 0:
        time.sleep(0.02)
    assert client.batches.cancel(batch.id).status == "cancelling"
    batch = ended(client, batch)
    answers = lines_of(client, batch.output_file_id)
    assert batch.status == "cancelled" and 0 < batch.request_counts.completed == len(answers) < 100
    with pytest.raises(openai.ConflictError):
        client.batches.cancel(batch.id)


def test_what_is_not_answered_in_time_expires(client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batches, "WINDOW", 1.0)  # a line takes 0.4 s, and eight are answered at a time
    batch = start(client, *(line(i, "x", model="slow") for i in range(100)))
    assert batch.expires_at - batch.created_at == 1
    batch = ended(client, batch)
    answers, errors = lines_of(client, batch.output_file_id), lines_of(client, batch.error_file_id)
    assert batch.status == "expired" and batch.expired_at and batch.completed_at is None
    assert 0 < len(answers) == batch.request_counts.completed < 40
    assert batch.request_counts.failed == len(errors) == 100 - len(answers)
    assert answers.keys() | errors.keys() == {f"r{i}" for i in range(100)}
    assert {(one["response"], one["error"]["code"]) for one in errors.values()} == {(None, "batch_expired")}
    with pytest.raises(openai.ConflictError, match="expired already"):
        client.batches.cancel(batch.id)


def test_a_line_that_never_ends_is_cut_off_when_the_time_is_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batches, "WINDOW", 0.5)
    endless = Slow(pieces=100_000)
    with served(endless, tmp_path) as client:
        batch = ended(client, start(client, line(0, "x"), line(1, "x")))
        assert batch.status == "expired" and batch.output_file_id is None and batch.request_counts.failed == 2
        assert endless.closed.wait(30)


def test_a_batch_that_expired_while_no_server_ran_asks_nobody(tmp_path: Path) -> None:
    with served(Slow(pieces=50), tmp_path) as client:
        identity = start(client, *(line(i, f"{i}") for i in range(2000))).id
    card = tmp_path / "batches" / f"{identity}.json"
    state = json.loads(card.read_text())
    assert state["status"] == "in_progress"
    card.write_text(json.dumps(state | {"created": state["created"] - 25 * 3600}))
    echo = Echo()
    with served(echo, tmp_path) as client:
        batch = ended(client, client.batches.retrieve(identity))
    assert batch.status == "expired" and echo.requests == []
    assert batch.request_counts.failed + batch.request_counts.completed == 2000


def test_lines_stand_back_behind_those_who_wait(tmp_path: Path) -> None:
    echo = Echo()
    with served(echo, tmp_path) as client:
        ended(client, start(client, line(0, "in a file")))
        client.chat.completions.create(model="echo", messages=[{"role": "user", "content": "by hand"}])
    assert [(one.messages[0].text, one.background) for one in echo.requests] == [
        ("in a file", True),
        ("by hand", False),
    ]
    assert all(one.timeout and 0 < one.timeout <= Limits().request_seconds for one in echo.requests)


def test_a_key_sees_and_pays_for_its_own(tmp_path: Path) -> None:
    keys = Keys(tmp_path / "keys.db")
    ann, secret = keys.add("ann", ["batch"], KeyLimits(tokens_per_day=7))
    _, other = keys.add("bob", ["batch"])
    with ServerThread(create_app({"echo": Echo()}, {}, keys=keys, folder=tmp_path / "jobs")) as server:
        mine = openai.OpenAI(base_url=f"{server.url}/v1", api_key=secret, max_retries=0)
        foreign = openai.OpenAI(base_url=f"{server.url}/v1", api_key=other, max_retries=0)
        with mine, foreign:
            batch = ended(mine, start(mine, *(line(i, "x") for i in range(30))))
            assert foreign.batches.list().data == [] and list(foreign.files.list()) == []
            with pytest.raises(openai.NotFoundError):
                foreign.batches.retrieve(batch.id)
            with pytest.raises(openai.NotFoundError):
                foreign.files.content(batch.output_file_id)
            # six tokens an answer, and eight lines at a time: the limit of seven stops it early
            assert 2 <= batch.request_counts.completed <= 16 and batch.request_counts.failed >= 14
            errors = lines_of(mine, batch.error_file_id)
            assert {one["response"]["status_code"] for one in errors.values()} == {429}
            assert keys.used(ann.id, "day").tokens == 6 * batch.request_counts.completed
    keys.close()


PROGRAM = """
    import sys
    from pathlib import Path
    sys.path[:0] = sys.argv[1:2]
    from serving_fakes import Echo, Slow
    from windlass.serve import run
    from windlass.serve.app import create_app

    listener = run.listen("127.0.0.1", 0)
    app = create_app({"slow": Slow(pieces=2, pause=0.02)}, {}, folder=Path(sys.argv[2]))
    run.run(app, listener, on_start=lambda: print(run.url(listener), flush=True))
"""


def test_a_batch_goes_on_after_kill_9(tmp_path: Path) -> None:
    program = [sys.executable, "-c", textwrap.dedent(PROGRAM), str(HERE), str(tmp_path)]
    total, identity, before = 120, "", -1
    for round in range(4):
        with subprocess.Popen(program, stdout=subprocess.PIPE, text=True) as process:
            try:
                assert process.stdout is not None
                url = process.stdout.readline().strip()
                with openai.OpenAI(base_url=f"{url}/v1", api_key="x", max_retries=0) as client:
                    if not identity:
                        identity = start(client, *(line(i, f"{i}", model="slow") for i in range(total))).id
                    batch = client.batches.retrieve(identity)
                    assert batch.request_counts.completed >= max(before, 0)
                    if round < 3:
                        while batch.request_counts.completed < before + 8:
                            batch = client.batches.retrieve(identity)
                        before = batch.request_counts.completed
                        continue
                    batch = ended(client, batch)
                    answers = client.files.content(batch.output_file_id).text.splitlines()
            finally:
                process.kill()
    names = [json.loads(one)["custom_id"] for one in answers]
    assert sorted(names) == sorted(f"r{i}" for i in range(total)) and batch.error_file_id is None


@contextlib.contextmanager
def served(model: Echo | Slow, folder: Path) -> Iterator[Any]:
    with (
        ServerThread(create_app({"echo": model}, {}, folder=folder)) as server,
        openai.OpenAI(base_url=f"{server.url}/v1", api_key="x", max_retries=0) as client,
    ):
        yield client


def test_a_torn_line_and_a_half_finished_end_are_repaired(tmp_path: Path) -> None:
    """As a crash leaves them: half a line of answers, and the finished file moved before the batch says so."""
    with served(Echo(), tmp_path) as client:
        batch = ended(client, start(client, *(line(i, f"{i}") for i in range(5))))
        whole = client.files.content(batch.output_file_id).text
    card = tmp_path / "batches" / f"{batch.id}.json"
    state = json.loads(card.read_text())
    card.write_text(json.dumps(state | {"status": "in_progress", "ended": None}))
    moved = tmp_path / "files" / f"{batch.output_file_id}.data"
    cut = whole[: len(whole) - 30]
    (tmp_path / "files" / f"{batch.output_file_id}.json").unlink()
    for torn in (False, True):
        if torn:
            moved.unlink()
            (tmp_path / "batches" / f"{batch.id}.output.jsonl").write_text(cut)
            card.write_text(json.dumps(state | {"status": "in_progress", "ended": None}))
        echo = Echo()
        with served(echo, tmp_path) as client:
            again = ended(client, client.batches.retrieve(batch.id))
            assert len(lines_of(client, again.output_file_id)) == 5 and again.request_counts.completed == 5
        assert len(echo.requests) == (1 if torn else 0)
