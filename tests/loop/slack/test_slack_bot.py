"""The bot against a Slack of our own, through the official SDK, over real sockets."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from slack_double import APP_TOKEN, BOT, BOT_TOKEN, Slack

from windlass.core.errors import NotFound, ProviderError
from windlass.core.protocols import ChatModel
from windlass.core.values import ChatDelta, ChatRequest, ChatResponse, Citation, Message
from windlass.loop.slack import texts
from windlass.loop.slack.access import Access
from windlass.loop.slack.bot import SlackBot
from windlass.loop.slack.questions import Question, Questions

pytest.importorskip("slack_sdk", reason="needs the extra windlass[slack]")
CITED = Citation("guide", "Guide", "Refunds", 0, 24, "Refunds take five days.", "guide.md")


class Model:
    """Says what it was asked, with a source; keeps every request."""

    name, digest = "assistant", None

    def __init__(self) -> None:
        self.requests: list[ChatRequest] = []
        self.go = threading.Event()
        self.go.set()
        self.error: Exception | None = None

    def stream(self, request: ChatRequest) -> Iterator[ChatDelta]:
        self.requests.append(request)
        self.go.wait(60)
        if self.error is not None:
            raise self.error
        text = f"You asked: {request.messages[-1].text} [1]"
        yield ChatDelta(text)
        trace = f"{len(self.requests):032x}"
        message = Message("assistant", text)
        yield ChatDelta(response=ChatResponse("r", self.name, message, "stop", citations=(CITED,), trace_id=trace))

    def complete(self, request: ChatRequest) -> ChatResponse:
        raise AssertionError("answers are streamed")


class World:
    def __init__(self, folder: Path, **settings: Any) -> None:
        from slack_sdk.http_retry.builtin_handlers import RateLimitErrorRetryHandler
        from slack_sdk.socket_mode.builtin import SocketModeClient
        from slack_sdk.web import WebClient

        self.slack, self.model = Slack(), Model()
        self.scores: list[tuple[str, bool, str, Mapping[str, str]]] = []
        self.questions = Questions(folder / "slack.db")
        web = WebClient(BOT_TOKEN, base_url=self.slack.api, timeout=30)
        web.retry_handlers.append(RateLimitErrorRetryHandler(max_retry_count=3))
        model: ChatModel = self.model
        self.bot = SlackBot(model, web, self.questions, self._score, **settings)
        self.client = SocketModeClient(APP_TOKEN, web_client=web, ping_interval=0.5, concurrency=1)
        self.client.socket_mode_request_listeners.append(self.bot.receive)

    def _score(self, trace: str, good: bool, author: str, said: Mapping[str, str]) -> None:
        if trace.endswith("f"):
            raise NotFound("There is no such trace.")
        self.scores.append((trace, good, author, said))

    def start(self) -> int:
        left = self.bot.start()
        self.client.connect()
        return left

    def close(self) -> None:
        self.model.go.set()
        self.client.auto_reconnect_enabled = False
        self.slack.drop()  # or the client would wait three seconds for what else might come
        self.client.close()
        self.bot.close()
        self.questions.close()
        self.slack.close()


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path, link="https://docs.example.com/{source}")
    made.start()
    yield made
    made.close()


def test_a_mention_is_answered_in_its_thread(world: World) -> None:
    event = world.slack.say("C1", "U1", f"<@{BOT}> how long do refunds take?")
    envelope = world.slack.deliver(event)
    (answer,) = world.slack.finished("C1")
    assert answer["thread_ts"] == event["ts"]
    assert "how long do refunds take?" in answer["text"] and BOT not in answer["text"]
    assert "<https://docs.example.com/guide.md|Guide &gt; Refunds>" in str(answer["blocks"])
    world.slack.wait(lambda: envelope in world.slack.acknowledged)
    assert "access" not in world.model.requests[0].extra
    posted = next(given for name, given in world.slack.calls if name == "chat.postMessage")
    assert posted["unfurl_links"] is False and posted["unfurl_media"] is False


def test_a_thread_is_a_conversation(world: World) -> None:
    first = world.slack.say("D1", "U1", "how long do refunds take?")
    world.slack.deliver(first)
    world.slack.finished("D1")
    for number in range(3):
        world.slack.deliver(world.slack.say("D1", "U1", f"and then? {number}", thread=first["ts"]))
        world.slack.finished("D1", number + 2)
    said = [(message.role, message.text) for message in world.model.requests[-1].messages]
    assert said[0] == ("user", "how long do refunds take?")
    assert said[1][0] == "assistant" and said[1][1].startswith("You asked: how long")
    assert [role for role, _ in said] == ["user", "assistant"] * 3 + ["user"]
    assert said[-1][1] == "and then? 2"


@pytest.mark.parametrize(
    "change",
    [
        {"subtype": "message_changed"},
        {"bot_id": "B7"},
        {"user": BOT},
        {"text": f"<@{BOT}>"},
        {"type": "reaction_added"},
    ],
)
def test_what_is_no_question_is_passed_over(world: World, change: dict[str, str]) -> None:
    event = {**world.slack.say("C1", "U1", f"<@{BOT}> hello"), **change}
    envelope = world.slack.deliver(event)
    world.slack.wait(lambda: envelope in world.slack.acknowledged)
    assert not world.questions.open() and not world.model.requests


def test_an_event_that_comes_twice_is_answered_once(world: World) -> None:
    event = world.slack.say("C1", "U1", f"<@{BOT}> hello?")
    for _ in range(3):
        last = world.slack.deliver(event)
    world.slack.wait(lambda: last in world.slack.acknowledged)
    world.slack.deliver(world.slack.say("C1", "U2", f"<@{BOT}> and this?"))
    world.slack.finished("C1", 2)
    assert len(world.slack.said("C1")) == 2 and len(world.model.requests) == 2


def test_thumbs_become_scores(world: World) -> None:
    world.slack.deliver(world.slack.say("C1", "U1", f"<@{BOT}> hello?"))
    (answer,) = world.slack.finished("C1")
    world.slack.press("C1", answer["ts"], texts.UP, "U2")
    world.slack.press("C1", answer["ts"], texts.DOWN, "U3")
    world.slack.wait(lambda: bool(world.slack.views))
    world.slack.submit("U3", answer="Ten days.", comment="")
    world.slack.wait(lambda: len(world.scores) == 3)
    trace = f"{1:032x}"
    assert world.scores == [
        (trace, True, "slack:U2", {}),
        (trace, False, "slack:U3", {}),
        (trace, False, "slack:U3", {"answer": "Ten days."}),
    ]
    world.slack.wait(lambda: "U3" in str(world.slack.said("C1")[0]["blocks"]))
    assert "👍 <@U2>   👎 <@U3>" in str(world.slack.said("C1")[0]["blocks"])


def test_a_failure_is_said_and_not_repeated(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    world.model.error = ProviderError("The provider is <down>.", "Wait.")
    world.slack.deliver(world.slack.say("C1", "U1", f"<@{BOT}> hello?"))
    (answer,) = world.slack.finished("C1")
    assert answer["text"] == "I cannot answer this: The provider is &lt;down&gt;."
    world.slack.wait(lambda: not world.questions.open())
    assert "The provider is <down>." in capsys.readouterr().err


def test_the_connection_is_made_again(world: World) -> None:
    world.slack.drop()
    world.slack.deliver(world.slack.say("C1", "U1", f"<@{BOT}> hello?"))
    world.slack.finished("C1")


def test_when_slack_is_busy_the_answer_comes_later(world: World) -> None:
    world.slack.limited = {"chat.update": 1}
    world.slack.deliver(world.slack.say("C1", "U1", f"<@{BOT}> hello?"))
    world.slack.finished("C1")
    assert world.slack.limited == {"chat.update": 0}


def test_questions_of_one_thread_are_answered_in_order(world: World) -> None:
    world.model.go.clear()
    first = world.slack.say("D1", "U1", "one")
    events = [first, *(world.slack.say("D1", "U1", text, thread=first["ts"]) for text in ("two", "three"))]
    for event in events:
        world.slack.deliver(event)
    world.slack.wait(lambda: len(world.questions.open()) == 3)
    world.model.go.set()
    world.slack.finished("D1", 3)
    assert [request.messages[-1].text for request in world.model.requests] == ["one", "two", "three"]


def test_labels_are_those_of_who_will_read(tmp_path: Path) -> None:
    file = tmp_path / "access.toml"
    file.write_text('[users]\nU1 = ["hr"]\n[channels]\nC1 = ["staff"]\n')
    world = World(tmp_path, labels=Access.read(file).labels)
    world.start()
    try:
        for channel, user in (("C1", "U1"), ("D1", "U1"), ("D2", "U2")):
            world.slack.deliver(world.slack.say(channel, user, f"<@{BOT}> salaries?"))
            world.slack.finished(channel)
        assert [request.extra["access"] for request in world.model.requests] == [["staff"], ["hr"], []]
    finally:
        world.close()


def test_a_half_written_answer_is_finished_not_doubled(tmp_path: Path) -> None:
    world = World(tmp_path)
    event = world.slack.say("C1", "U1", f"<@{BOT}> hello?")
    question = Question("C1", event["ts"], event["ts"], "U1", event["text"], False)
    done = world.slack.say("C1", "U1", f"<@{BOT}> before?")
    answered = Question("C1", done["ts"], done["ts"], "U1", done["text"], False)
    for one, state in ((question, "writing"), (answered, "done")):
        world.questions.take(one)
        payload = {"question": one.ts, "state": state}
        world.slack.post({"channel": "C1", "thread_ts": one.ts, "text": "half", "metadata": {"event_payload": payload}})
    try:
        assert world.start() == 2
        world.slack.finished("C1", 2)
        world.slack.wait(lambda: not world.questions.open())
        assert len(world.slack.said("C1")) == 2
        assert [request.messages[-1].text for request in world.model.requests] == ["hello?"]
    finally:
        world.close()


SERVER = """
import json, sys, threading
sys.path[:0] = json.loads(sys.argv[4])
from pathlib import Path
from slack_sdk.socket_mode.builtin import SocketModeClient
from slack_sdk.web import WebClient
from test_slack_bot import Model
from windlass.loop.slack.bot import SlackBot
from windlass.loop.slack.questions import Questions
web = WebClient("xoxb-test", base_url=sys.argv[1], timeout=30)
model = Model()
if sys.argv[3] == "stuck":
    model.go.clear()
bot = SlackBot(model, web, Questions(Path(sys.argv[2])), lambda *a: None)
client = SocketModeClient("xapp-1-test", web_client=web, concurrency=1)
client.socket_mode_request_listeners.append(bot.receive)
bot.start()
client.connect()
print("ready", flush=True)
threading.Event().wait()
"""


def _process(slack: Slack, file: Path, how: str) -> subprocess.Popen[str]:
    import json

    command: Sequence[str] = [sys.executable, "-c", SERVER, slack.api, str(file), how, json.dumps(sys.path)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "ready\n"
    return process


def test_a_killed_bot_answers_once_when_it_is_back(tmp_path: Path) -> None:
    slack = Slack()
    processes = [_process(slack, tmp_path / "slack.db", "stuck")]
    try:
        envelope = slack.deliver(slack.say("C1", "U1", f"<@{BOT}> hello?"))
        slack.wait(lambda: envelope in slack.acknowledged and bool(slack.said("C1")))
        os.kill(processes[0].pid, signal.SIGKILL)
        processes[0].wait()
        slack.wait(lambda: not slack._links)
        processes.append(_process(slack, tmp_path / "slack.db", "free"))
        slack.finished("C1")
        assert len(slack.said("C1")) == 1
    finally:
        for process in processes:
            process.kill()
            process.wait()
            assert process.stdout is not None
            process.stdout.close()
        slack.close()
