"""What every endpoint works with: the models by name, the workers that run them, and the counters."""

from __future__ import annotations

import re
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import NoReturn, TypeVar

from windlass.core.errors import InputError, NotFound, Unsupported, WindlassError
from windlass.core.protocols import ChatModel, Classifying, Embedder, Reranker
from windlass.core.store import Store
from windlass.core.trace import Recorder
from windlass.core.values import ChatDelta, ChatRequest, ChatResponse
from windlass.serve.adapter_folders import AdapterFolders
from windlass.serve.api.catalogue import Catalogue
from windlass.serve.api.fields import Check, Json, text
from windlass.serve.api.generate import Call
from windlass.serve.api.operation import Caller
from windlass.serve.errors import BadField, HttpError
from windlass.serve.keys import Keys
from windlass.serve.limits import Limits
from windlass.serve.metrics import Metrics
from windlass.serve.work import Workers

TOKENS = "windlass_tokens_total"
FIRST = "windlass_time_to_first_chunk_seconds"
_GRACE = 0.5
"""Seconds after its deadline in which a model may end by itself, and say what became of the answer."""
T = TypeVar("T")
Take = Callable[[int, ChatDelta], None]
Answers = Callable[[Take], Awaitable[list[ChatResponse]]]
"""`Context.answers` of one call."""


@dataclass(frozen=True, slots=True)
class Context:
    models: Catalogue
    embedders: Mapping[str, Embedder]
    rerankers: Mapping[str, Reranker]
    classifiers: Mapping[str, Classifying]
    store: Store | None
    recorder: Recorder
    limits: Limits
    workers: Workers
    metrics: Metrics
    keys: Keys | None = None
    adapter_folders: AdapterFolders = field(default_factory=AdapterFolders)
    started: int = field(default_factory=lambda: int(time.time()))

    def __post_init__(self) -> None:
        self.metrics.declare(TOKENS, "counter", "Tokens by model and direction (input, output).")
        self.metrics.declare(FIRST, "histogram", "Seconds from a request to the first piece of its answer, by model.")

    # names -----------------------------------------------------------------------------------------------------------

    def kinds(self) -> dict[str, Mapping[str, ChatModel | Embedder | Reranker | Classifying]]:
        """What there is now, by what it is for."""
        return {
            "chat": self.models,
            "embeddings": self.embedders,
            "rerank": self.rerankers,
            "classify": self.classifiers,
        }

    def names(self) -> list[str]:
        return list(dict.fromkeys(name for known in self.kinds().values() for name in known))

    def named(self, known: Mapping[str, T], name: str) -> T:
        """The model of this name. Raises `HttpError` (404)."""
        found = known.get(name)
        if found is None:
            self.no_model(name, list(known))
        return found

    def chosen(self, fields: Json, known: Mapping[str, T], bases: Mapping[str, T], what: str) -> T:
        """The model that the field `model` names; it may be left out where there is only one of `bases`."""
        if "model" in fields:
            return self.named(known, fields["model"])
        if len(bases) == 1:
            return next(iter(bases.values()))
        raise BadField("model", "'model' is missing.", f"Models {what}: {', '.join(bases) or 'none'}.")

    def no_model(self, name: str, known: list[str]) -> NoReturn:
        listed = ", ".join(f"'{one}'" for one in known) or "none"
        raise HttpError(
            404, f"There is no model '{name[:200]}' here.", f"Models: {listed}.", code="model_not_found", param="model"
        )

    @staticmethod
    def model_field(known: Mapping[str, object]) -> Check:
        """A model's name. What is not known is refused later, with 404; the schema says what is."""
        return Check({"type": "string", "enum": list(known)} if known else {"type": "string"}, text(empty=False).read)

    # work ------------------------------------------------------------------------------------------------------------

    async def answers(self, call: Call, caller: Caller, take: Take = lambda index, delta: None) -> list[ChatResponse]:
        """The responses to all requests of a call, in order. `take` gets every delta as it comes, with the number of
        its request, on the event loop; the last of each carries its response.

        When the caller leaves, or nobody waits for this any more, the models are stopped. What was used is counted and
        charged to the caller's key, in every case.
        """
        model = self.named(self.models, call.model)
        requests = [_with_access(request, model, caller) for request in call.requests]
        started, waiting = time.monotonic(), True
        responses: list[ChatResponse | None] = [None] * len(call.requests)
        pieces = [0] * len(call.requests)
        deadline = started + self.limits.request_seconds

        def run(index: int) -> Callable[[], Iterator[ChatDelta]]:
            """To be called when its turn has come: the time in line counts."""
            asked, background = requests[index], caller.request is None
            return lambda: model.stream(replace(asked, timeout=deadline - time.monotonic(), background=background))

        def come(index: int, delta: ChatDelta) -> None:
            nonlocal waiting
            if waiting:
                waiting = False
                self.metrics.observe(FIRST, time.monotonic() - started, model=call.model)
            pieces[index] += 1
            if delta.response is not None:
                responses[index] = delta.response
            take(index, delta)

        try:
            makes = [run(i) for i in range(len(call.requests))]
            # The clock of the workers is for models that have none of their own.
            await self.workers.run(makes, come, caller.receive, self.limits.request_seconds + _GRACE)
            whole = [response for response in responses if response is not None]
            if len(whole) < len(responses):
                raise WindlassError(f"The model '{call.model}' ended without a response.")
            return whole
        except (Unsupported, InputError) as error:
            raise _naming_the_field(error, call) from error
        finally:
            self._charge(call.model, caller, responses, pieces)

    async def blocking(self, function: Callable[[], T], caller: Caller) -> T:
        """The result of one blocking call, within the time a request may take."""
        return await self.workers.call(function, caller.receive, self.limits.request_seconds)

    # counting --------------------------------------------------------------------------------------------------------

    def count(self, model: str, caller: Caller, *, input: int, output: int = 0, cost: float | None) -> None:
        """Adds to the metrics, and to what the caller's key has used."""
        self.metrics.add(TOKENS, input, model=model, direction="input")
        self.metrics.add(TOKENS, output, model=model, direction="output")
        if self.keys is not None and caller.key is not None:
            self.keys.charge(caller.key, input + output, cost)

    def _charge(self, model: str, caller: Caller, responses: list[ChatResponse | None], pieces: list[int]) -> None:
        read = written = 0
        costs: list[float | None] = []
        for response, count in zip(responses, pieces, strict=True):
            if response is None:
                # Cut off: a piece is at least a token, and what the prompt held is not known any more.
                written += count
                if count:
                    costs.append(None)
            else:
                read += response.usage.prompt or 0
                written += response.usage.completion or 0
                costs.append(response.cost_usd)
        if costs:
            known = [cost for cost in costs if cost is not None]
            cost = sum(known) if len(known) == len(costs) else None
            self.count(model, caller, input=read, output=written, cost=cost)


def _with_access(request: ChatRequest, model: ChatModel, caller: Caller) -> ChatRequest:
    """With the labels of documents that who asks may find, for a model that searches some: those of the key, or fewer
    of them that the request names. Whoever needs no key says which. Raises `HttpError` (403) for others."""
    if caller.key is None or not getattr(model, "takes_access", False):
        return request
    asked = request.extra.get("access")
    labels = caller.key.access if asked is None else frozenset(asked)
    if beyond := sorted(labels - caller.key.access):
        raise HttpError(
            403, f"The key '{caller.key.name}' may not find documents labelled '{beyond[0][:200]}'.",
            "Make one with: windlass keys add NAME --access LABEL", code="missing_access", param="access",
        )  # fmt: skip
    return replace(request, extra={**request.extra, "access": sorted(labels)})


def _naming_the_field(error: Unsupported | InputError, call: Call) -> WindlassError:
    """The model refuses a field by its wire name: say which one in `param`, where clients look for it."""
    if isinstance(error, BadField | NotFound):
        return error
    asked = ("max_tokens", "response_format", "tools", *call.requests[0].beyond_text())
    found = re.findall(r"(?:^|')([a-z_]+)", error.message)
    named = next((field for field in asked if field in found), None)
    code = getattr(error, "code", "unsupported" if isinstance(error, Unsupported) else "invalid_value")
    return BadField(named, error.message, error.hint, code=code)
