"""The examination: the same requests to both servers, each answer held against the API and against the other's.

A check reads one server (`observe`), so that everything about an answer is decided before the two are compared.
Numbers compare within a tolerance: two engines that add up in another order do not agree in the last digits, and a
greedy text may part where two tokens are as likely. Such a parting is shown with the place and the gap.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from windlass.serve.probe.server import Reply, Server, at

Verdict = Literal["same", "close", "differs", "wrong", "neither", "only A", "only B"]
PROMPTS = (
    "The capital of France is",
    "def add(a, b):\n    return",
    "List three colours, separated by commas:",
)
LENGTH = 24
"""Tokens asked for."""
TOO_LONG = 150_000
"""Words of a prompt that no window should hold."""


@dataclass(frozen=True, slots=True)
class Seen:
    """What one server did. `value` is None where it refused the feature by a status."""

    shown: str
    value: Any = None
    fault: str = ""
    """What the API forbids about it, if anything."""


@dataclass(frozen=True, slots=True)
class Finding:
    check: str
    a: str
    b: str
    verdict: Verdict
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Check:
    name: str
    observe: Callable[[Server], Seen]
    compare: Callable[[Any, Any, float], tuple[Verdict, str]]


def examine(a: Server, b: Server, tolerance: float = 0.05) -> list[Finding]:
    """All checks on both servers. `tolerance`: of log-probabilities, in nats. Raises `ProviderError` for silence."""
    with a.client, b.client:
        for server in (a, b):
            server.choose_model()
        return [_finding(check, check.observe(a), check.observe(b), tolerance) for check in CHECKS]


def _finding(check: Check, a: Seen, b: Seen, tolerance: float) -> Finding:
    faults = "; ".join(f"{who}: {seen.fault}" for who, seen in (("A", a), ("B", b)) if seen.fault)
    if faults:
        return Finding(check.name, a.shown, b.shown, "wrong", faults)
    if a.value is None or b.value is None:
        verdict: Verdict = "neither" if a.value is b.value else "only B" if a.value is None else "only A"
        return Finding(check.name, a.shown, b.shown, verdict)
    verdict, detail = check.compare(a.value, b.value, tolerance)
    return Finding(check.name, a.shown, b.shown, verdict, detail)


# ---- how two answers compare -----------------------------------------------------------------------------------------


def _equal(a: Any, b: Any, tolerance: float) -> tuple[Verdict, str]:
    return ("same", "") if a == b else ("differs", "")


def _texts(a: Sequence[str], b: Sequence[str], tolerance: float) -> tuple[Verdict, str]:
    for number, (one, other) in enumerate(zip(a, b, strict=True)):
        if one != other:
            place = next((i for i, (x, y) in enumerate(zip(one, other)) if x != y), min(len(one), len(other)))
            return (
                "differs",
                f"prompt {number + 1} parts at character {place}: {one[place:][:20]!r}, {other[place:][:20]!r}",
            )
    return "same", ""


Scored = tuple[str, float, "tuple[float, ...]"]
"""A token, its log-probability, and those of the likeliest tokens in its place."""


def _scores(a: Sequence[Scored], b: Sequence[Scored], tolerance: float) -> tuple[Verdict, str]:
    """Over the tokens that both wrote; where they part, by the gap between the two likeliest."""
    largest, compared = 0.0, 0
    for (token, score, best), (other, also, _) in zip(a, b, strict=False):
        if token != other:
            gap = best[0] - best[1] if len(best) > 1 else float("inf")
            said = f"token {compared + 1} is {token!r}, {other!r}; to the runner-up {gap:.3f}"
            return ("close" if gap <= 2 * tolerance else "differs"), said
        largest, compared = max(largest, abs(score - also)), compared + 1
    if len(a) != len(b):
        return "differs", f"{len(a)} and {len(b)} tokens"
    verdict: Verdict = "same" if largest < 1e-6 else "close" if largest <= tolerance else "differs"
    return verdict, f"at most {largest:.2g} apart over {compared} tokens"


# ---- what is asked ---------------------------------------------------------------------------------------------------


def _refusal(reply: Reply) -> Seen:
    """A feature that the server declines must be declined in the API's own shape."""
    message = reply.at("error", "message")
    fault = "" if 400 <= reply.status < 600 and isinstance(message, str) else "neither an answer nor an error object"
    return Seen(f"refused {reply.status}", None, fault)


def _short(text: str) -> str:
    return repr(text if len(text) <= 28 else text[:27] + "…")


def _chat_texts(server: Server) -> Seen:
    texts = []
    for prompt in PROMPTS:
        reply = server.chat(prompt, temperature=0, max_tokens=LENGTH)
        content = reply.at("choices", 0, "message", "content")
        if reply.status != 200 or not isinstance(content, str):
            return _refusal(reply)
        texts.append(content)
    return Seen(_short(texts[0]), texts)


def _completion_texts(server: Server) -> Seen:
    texts = []
    for prompt in PROMPTS:
        reply = server.complete(prompt, temperature=0, max_tokens=LENGTH)
        if reply.status != 200 or not isinstance(reply.at("choices", 0, "text"), str):
            return _refusal(reply)
        texts.append(reply.at("choices", 0, "text"))
    return Seen(_short(texts[0]), texts)


def _logprobs(server: Server) -> Seen:
    scored: list[Scored] = []
    for prompt in PROMPTS:
        reply = server.chat(prompt, temperature=0, max_tokens=LENGTH, logprobs=True, top_logprobs=2)
        content = reply.at("choices", 0, "logprobs", "content")
        if reply.status != 200:
            return _refusal(reply)
        if not isinstance(content, list) or not content:
            return Seen("none", None, "accepted logprobs and sent none")
        for item in content:
            best = tuple(sorted((float(at(top, "logprob")) for top in item["top_logprobs"]), reverse=True))
            scored.append((str(item["token"]), float(item["logprob"]), best))
    return Seen(f"{len(scored)} tokens", scored)


def _prompt_logprobs(server: Server) -> Seen:
    reply = server.complete(PROMPTS[0] + " Paris.", temperature=0, max_tokens=1, echo=True, logprobs=1)
    if reply.status != 200:
        return _refusal(reply)
    tokens, scores = (reply.at("choices", 0, "logprobs", key) for key in ("tokens", "token_logprobs"))
    if not isinstance(tokens, list) or not isinstance(scores, list) or len(tokens) != len(scores):
        return Seen("none", None, "accepted echo and logprobs and sent none")
    scored = [(str(token), float(score), (float(score),)) for token, score in zip(tokens, scores) if score is not None]
    return Seen(f"{len(scored)} tokens", scored[:-1])  # without the one written token, which may differ


def _usage(server: Server) -> Seen:
    reply = server.chat(PROMPTS[0], temperature=0, max_tokens=8)
    counts = [reply.at("usage", key) for key in ("prompt_tokens", "completion_tokens", "total_tokens")]
    if reply.status != 200:
        return _refusal(reply)
    if not all(isinstance(count, int) for count in counts):
        return Seen("none", None, "sent no usage")
    fault = "" if counts[0] + counts[1] == counts[2] else "total_tokens is not the sum"
    return Seen(f"{counts[0]} + {counts[1]}", counts[0], fault)


def _stop(server: Server) -> Seen:
    """A word of its own answer as stop string: the text must end before it."""
    whole = server.chat(PROMPTS[2], temperature=0, max_tokens=LENGTH).at("choices", 0, "message", "content")
    if not isinstance(whole, str) or len(whole) < 6:
        return Seen("answer too short", None)
    stop = whole[len(whole) // 2 :][:3]
    reply = server.chat(PROMPTS[2], temperature=0, max_tokens=LENGTH, stop=[stop])
    text = reply.at("choices", 0, "message", "content")
    if reply.status != 200 or not isinstance(text, str):
        return _refusal(reply)
    right = text == whole[: whole.index(stop)]
    finish = reply.at("choices", 0, "finish_reason")
    fault = "" if right and finish == "stop" else f"text before the stop is {_short(text)}, finish_reason {finish!r}"
    return Seen("kept" if right else "broken", right, fault)


def _length(server: Server) -> Seen:
    reply = server.chat(PROMPTS[0], temperature=0, max_tokens=1)
    if reply.status != 200:
        return _refusal(reply)
    finish, count = reply.at("choices", 0, "finish_reason"), reply.at("usage", "completion_tokens")
    fault = "" if finish in ("length", "stop") and count in (None, 1) else f"{finish!r} after {count} tokens"
    return Seen(str(finish), finish, fault)


def _streaming(server: Server) -> Seen:
    """The pieces make up the text of the plain answer; one finish reason; usage where asked; [DONE] last."""
    plain = server.chat(PROMPTS[0], temperature=0, max_tokens=LENGTH).at("choices", 0, "message", "content")
    reply = server.chat(
        PROMPTS[0], temperature=0, max_tokens=LENGTH, stream=True, stream_options={"include_usage": True}
    )
    if reply.status != 200 or not reply.events:
        return _refusal(reply)
    pieces = [at(event, "choices", 0, "delta", "content") or "" for event in reply.events]
    finishes = [at(event, "choices", 0, "finish_reason") for event in reply.events]
    faults = [] if "".join(pieces) == plain else ["the pieces are not the plain answer"]
    faults += [] if len([f for f in finishes if f]) == 1 else ["not one finish_reason"]
    faults += [] if any(at(event, "usage", "total_tokens") for event in reply.events) else ["no usage"]
    faults += [] if reply.done else ["no [DONE]"]
    return Seen("sound" if not faults else "broken", True, ", ".join(faults))


def _seed(server: Server) -> Seen:
    texts = []
    for _ in range(2):
        reply = server.chat(PROMPTS[2], temperature=1.0, max_tokens=LENGTH, seed=7)
        if reply.status != 200:
            return _refusal(reply)
        texts.append(reply.at("choices", 0, "message", "content"))
    same = texts[0] == texts[1]
    return Seen("repeats" if same else "drifts", same)


def _error(name: str, ask: Callable[[Server], Reply], statuses: tuple[int, ...]) -> Check:
    def observe(server: Server) -> Seen:
        reply = ask(server)
        right = reply.status in statuses
        shaped = isinstance(reply.at("error", "message"), str) and isinstance(reply.at("error", "type"), str)
        fault = (
            f"answered {reply.status} instead of {' or '.join(map(str, statuses))}"
            if not right
            else ""
            if shaped
            else "its error has no message and type"
        )
        return Seen(str(reply.status), reply.status, fault)

    return Check(name, observe, _equal)


CHECKS: tuple[Check, ...] = (
    Check("chat, greedy", _chat_texts, _texts),
    Check("completions, greedy", _completion_texts, _texts),
    Check("log-probabilities", _logprobs, _scores),
    Check("of the prompt", _prompt_logprobs, _scores),
    Check("usage", _usage, _equal),
    Check("stop string", _stop, _equal),
    Check("length", _length, _equal),
    Check("streaming", _streaming, _equal),
    Check("seed", _seed, _equal),
    _error(
        "error: unknown model",
        lambda s: s.chat("x", model="no-such-model", max_tokens=1),
        (404, 400),
    ),
    _error("error: broken JSON", lambda s: s.post("/chat/completions", b'{"model": '), (400, 422)),
    _error("error: no messages", lambda s: s.post("/chat/completions", {"model": s.model}), (400, 422)),
    _error("error: temperature", lambda s: s.chat("x", temperature=-3, max_tokens=1), (400, 422)),
    _error("error: far too long", lambda s: s.chat("word " * TOO_LONG, max_tokens=1), (400, 413)),
)
