"""The bot: a question in Slack becomes a request, its answer a message in the same thread.

A thread is a conversation: what was said before in it, by people and by the bot, is read from Slack itself with every
question, so nothing has to be remembered here and a restart forgets nothing. A question is on the disk before Slack is
told that it arrived. Its answer is one message, written under a mark that names the question: whoever goes on after a
`kill -9` finds the mark and finishes that message instead of writing a second one.
"""

from __future__ import annotations

import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Any

from windlass.core.errors import WindlassError
from windlass.core.protocols import ChatModel
from windlass.core.values import ChatRequest, ChatResponse, Message
from windlass.loop.slack import texts
from windlass.loop.slack.questions import Question, Questions

if TYPE_CHECKING:
    from slack_sdk.socket_mode.client import BaseSocketModeClient
    from slack_sdk.socket_mode.request import SocketModeRequest
    from slack_sdk.web import WebClient

Score = Callable[[str, bool, str, Mapping[str, str]], object]
"""Stores what a person says of an answer: trace, good or not, who, and what was written (`answer`, `comment`)."""
Labels = Callable[[Question], Sequence[str]]
"""Which documents may be used for a question, by their access labels."""

HISTORY = 20
"""Messages of a thread that the model is shown, the question included."""
_PAUSE = 1.5
"""Seconds between two changes of a message while it is written: Slack allows about one a second."""
_REMEMBERED = 500
"""Messages."""
_WAIT = "…"


class SlackBot:
    """Answers by `model`. `labels` None: the model is asked without any, so it uses public documents only.

    Questions of one thread are answered in the order in which they came, others at once, `workers` at a time.
    """

    def __init__(
        self,
        model: ChatModel,
        web: WebClient,
        questions: Questions,
        score: Score,
        *,
        labels: Labels | None = None,
        link: str | None = None,
        workers: int = 4,
    ) -> None:
        self._model = model
        self._web = web
        self._questions = questions
        self._score = score
        self._labels = labels
        self._link = link
        self._lanes = [ThreadPoolExecutor(1, f"slack-{number}") for number in range(workers)]
        self._thanking = ThreadPoolExecutor(1, "slack-feedback")
        self._thanked: dict[str, list[dict[str, Any]]] = {}
        """How the messages that were scored last look now: a click may come from somebody who saw an older state."""
        self._me = ""
        self._closing = threading.Event()

    def start(self) -> int:
        """Learns who it is, goes on with what was taken on before, and says how many questions that are."""
        self._me = str(self._web.auth_test()["user_id"])
        left = self._questions.open()
        for question in left:
            self._answer_soon(question)
        return len(left)

    def close(self) -> None:
        """Finishes the answers under way. Questions that wait in line are answered after the next start."""
        self._closing.set()
        for lane in [*self._lanes, self._thanking]:
            lane.shutdown(wait=True, cancel_futures=True)

    # what Slack sends ---------------------------------------------------------------------------------------------

    def receive(self, client: BaseSocketModeClient, request: SocketModeRequest) -> None:
        """To be called with everything that arrives, one after the other, or questions lose their order.

        Told to Slack is what was dealt with: the rest comes again.
        """
        from slack_sdk.socket_mode.response import SocketModeResponse

        if request.type == "events_api":
            question = asked(request.payload.get("event", {}), self._me)
            if question is not None and self._questions.take(question):
                self._answer_soon(question)
        elif request.type == "interactive":
            self._heard(request.payload)
        client.send_socket_mode_response(SocketModeResponse(envelope_id=request.envelope_id))

    def _heard(self, payload: Mapping[str, Any]) -> None:
        """A button or a form: a score on the trace of the answer."""
        user = str(payload.get("user", {}).get("id", ""))
        author = f"slack:{user}"
        if payload.get("type") == "view_submission":
            view = payload["view"]
            said = {name: text for name, text in texts.form_values(view).items() if text}
            if view.get("callback_id") == texts.BETTER and said:
                self._store(str(view["private_metadata"]), False, author, said)
            return
        for action in payload.get("actions", ()):
            if action.get("action_id") not in (texts.UP, texts.DOWN):
                continue
            good, trace = action["action_id"] == texts.UP, str(action["value"])
            if self._store(trace, good, author, {}) and not self._closing.is_set():
                work = self._thanking.submit(self._thank, payload, trace, good, user)
                work.add_done_callback(partial(_failed, f"the feedback on trace {trace[:12]}"))

    def _thank(self, payload: Mapping[str, Any], trace: str, good: bool, user: str) -> None:
        """Shows who said what; and to those who are not content, a form for what would have been better."""
        if not good:
            self._web.views_open(trigger_id=payload["trigger_id"], view=texts.better_form(trace))
        shown, channel = payload["message"], payload["channel"]["id"]
        key = f"{channel}/{shown['ts']}"
        blocks = texts.thanked_blocks(self._thanked.pop(key, shown.get("blocks", ())), good, user)
        self._web.chat_update(channel=channel, ts=shown["ts"], text=shown.get("text", ""), blocks=blocks)
        self._thanked[key] = blocks
        while len(self._thanked) > _REMEMBERED:
            del self._thanked[next(iter(self._thanked))]

    def _store(self, trace: str, good: bool, author: str, said: Mapping[str, str]) -> bool:
        try:
            self._score(trace, good, author, said)
        except WindlassError as error:  # the trace was deleted, say: nobody in Slack can mend that
            _log(f"the feedback of {author} on trace {trace[:12]} was not stored: {error.message}")
            return False
        return True

    # answering ----------------------------------------------------------------------------------------------------

    def _answer_soon(self, question: Question) -> None:
        if not self._closing.is_set():
            lane = self._lanes[hash((question.channel, question.thread)) % len(self._lanes)]
            name = f"the question {question.channel}/{question.ts}"
            lane.submit(self._answer, question).add_done_callback(partial(_failed, name))

    def _answer(self, question: Question) -> None:
        before, mine = self._thread(question)
        if mine is not None and _state(mine) == "done":
            self._questions.done(question)
            return
        ts = mine["ts"] if mine is not None else self._post(question)
        request = ChatRequest(
            [*before, Message("user", texts.read(question.text, self._me))], extra=self._extra(question)
        )
        try:
            response = self._streamed(request, question, ts)
        except WindlassError as error:
            _log(f"the question {question.channel}/{question.ts} cannot be answered: {error}")
            self._write(question, ts, f"I cannot answer this: {texts.escaped(error.message)}", [], "done")
        else:
            blocks = texts.answer_blocks(response, self._link)
            self._write(question, ts, texts.escaped(response.message.text)[:4000], blocks, "done")
        self._questions.done(question)

    def _streamed(self, request: ChatRequest, question: Question, ts: str) -> ChatResponse:
        said, shown = "", time.monotonic()
        for delta in self._model.stream(request):
            said += delta.text
            if delta.response is not None:
                return delta.response
            if said.strip() and time.monotonic() - shown >= _PAUSE:
                self._write(question, ts, texts.written(said)[:3900] + " " + _WAIT, [], "writing")
                shown = time.monotonic()
        raise AssertionError("a stream ends with its response")

    def _extra(self, question: Question) -> dict[str, Any]:
        return {} if self._labels is None else {"access": list(self._labels(question))}

    def _thread(self, question: Question) -> tuple[list[Message], Mapping[str, Any] | None]:
        """What was said in the thread before the question, and the bot's own message for it, where there is one."""
        found: list[Mapping[str, Any]] = []
        cursor: str | None = None
        while True:
            page = self._web.conversations_replies(
                channel=question.channel, ts=question.thread, limit=200, cursor=cursor, include_all_metadata=True
            )
            found += page["messages"]
            cursor = (page.get("response_metadata") or {}).get("next_cursor") or None
            if cursor is None:
                break
        messages: list[Message] = []
        mine: Mapping[str, Any] | None = None
        for one in found:
            payload = (one.get("metadata") or {}).get("event_payload", {})
            if one.get("user") == self._me and payload.get("question") == question.ts:
                mine = one
            elif float(one["ts"]) < float(question.ts):
                text = texts.read(one.get("text", ""), self._me)
                if text and _state(one) != "writing":
                    messages.append(Message("assistant" if one.get("user") == self._me else "user", text))
        return messages[-(HISTORY - 1) :], mine

    def _post(self, question: Question) -> str:
        posted = self._web.chat_postMessage(
            channel=question.channel,
            thread_ts=question.thread,
            text=_WAIT,
            unfurl_links=False,
            unfurl_media=False,
            metadata=_mark(question, "writing"),
        )
        return str(posted["ts"])

    def _write(self, question: Question, ts: str, text: str, blocks: list[dict[str, Any]], state: str) -> None:
        self._web.chat_update(
            channel=question.channel, ts=ts, text=text, blocks=blocks, metadata=_mark(question, state)
        )


def asked(event: Mapping[str, Any], me: str) -> Question | None:
    """The question that an event is: a mention in a channel, or a message to the bot itself. Not what bots say."""
    direct = event.get("type") == "message" and event.get("channel_type") == "im"
    if not (direct or event.get("type") == "app_mention") or event.get("subtype") or event.get("bot_id"):
        return None
    if event.get("user") in (None, me) or not texts.read(event.get("text", ""), me):
        return None
    ts = str(event["ts"])
    return Question(event["channel"], ts, str(event.get("thread_ts") or ts), event["user"], event["text"], direct)


def _mark(question: Question, state: str) -> dict[str, Any]:
    return {"event_type": texts.ANSWER, "event_payload": {"question": question.ts, "state": state}}


def _state(message: Mapping[str, Any]) -> str | None:
    state = (message.get("metadata") or {}).get("event_payload", {}).get("state")
    return None if state is None else str(state)


def _failed(what: str, work: Future[None]) -> None:
    """Slack's failures, and faults of ours. A question stays open, and is tried again after the next start."""
    if not work.cancelled() and (error := work.exception()) is not None:
        _log(f"{what} was not dealt with:\n{''.join(traceback.format_exception(error))}")


def _log(text: str) -> None:
    print(f"windlass slack: {text}", file=sys.stderr, flush=True)
