"""From a chat request, in the words of the wire, to what an engine is asked.

Every parameter is honoured or refused by name; what the request leaves open, the model's `generation_config.json` says.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from windlass.core.errors import InputError, TooLong, Unsupported
from windlass.core.values import ChatRequest
from windlass.serve.engine.dialect.dialect import Dialect, Parts
from windlass.serve.engine.dialect.harmony import Channels
from windlass.serve.engine.prompt import Prompt
from windlass.serve.engine.request import Generation
from windlass.serve.engine.sampling.settings import MAX_LOGPROBS, SAMPLING_FIELDS, Sampling

if TYPE_CHECKING:
    from windlass.serve.engine.constraints.grammars import Grammars

RAW_PROMPT = "raw_prompt"
"""Key of `ChatRequest.extra` (true or false): read the one user message as it stands, without the chat template."""
PROMPT_TOKENS = "prompt_token_ids"
"""Key of `ChatRequest.extra`: read these tokens in place of the messages."""

_WITHOUT_DEFAULT = ("seed", "logit_bias", "logprobs", "min_tokens")
_BEAMS = ("beam_width", "length_penalty", "early_stopping")
BACKGROUND = 60
"""Added to the priority of what nobody sits waiting for: it stands back for ten minutes."""
INCLUDE_STOP = "include_stop_str_in_output"
"""Key of `ChatRequest.extra` (true or false): the text ends behind the stop string rather than before it."""


@dataclass(frozen=True, slots=True)
class Defaults:
    """What a model's folder says, for requests that do not."""

    eos: frozenset[int]
    bos: int | None
    start: int | None = None
    """The token that an encoder-decoder's answers begin with."""
    sampling: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, folder: Path) -> Defaults:
        """Raises `InputError` naming the file that cannot be read."""
        merged: dict[str, Any] = {}
        for name in ("config.json", "generation_config.json"):  # the later one wins, as in transformers
            path = folder / name
            if path.is_file():
                try:
                    found = json.loads(path.read_text(encoding="utf-8"))
                except ValueError as error:
                    raise InputError(f"{path} is not valid JSON ({error}).") from error
                merged |= {key: value for key, value in found.items() if value is not None}
        for name in ("eos_token_id", "bos_token_id", "decoder_start_token_id"):
            several = name == "eos_token_id" and isinstance(merged.get(name), list)
            for token in merged.get(name, []) if several else [merged.get(name, 0)]:
                if type(token) is not int or token < 0:
                    raise InputError(f"{folder}: '{name}' is {token!r}, but must be the number of a token.")
        eos = merged.get("eos_token_id", [])
        sampling = {name: merged[name] for name in SAMPLING_FIELDS.difference(_WITHOUT_DEFAULT) if name in merged}
        if merged.get("do_sample") is False:
            sampling["temperature"] = 0.0
        try:
            Sampling(**sampling)
        except InputError as error:
            raise InputError(f"{folder}/generation_config.json: {error.message}", error.hint) from error
        return cls(
            frozenset(eos if isinstance(eos, list) else [eos]),
            merged.get("bos_token_id"),
            merged.get("decoder_start_token_id"),
            sampling,
        )


def generation(
    request: ChatRequest,
    prompt: Prompt,
    defaults: Defaults,
    grammars: Callable[[], Grammars],
    *,
    model: str,
    context: int,
    apart: bool = False,
    adapter: str | None = None,
) -> tuple[Generation, Parts | Channels]:
    """What `model`, which reads at most `context` tokens, is asked, and how its answer is taken apart; `apart`: the
    answer has a window of its own of as many. `adapter`: the one it writes with. `grammars` are made when a constraint
    needs them.

    Raises `InputError` when the prompt does not fit the window or a value is out of range, `Unsupported` for
    parameters that this model cannot honour.
    """
    asked = request.beyond_text()
    tokens: Sequence[int] | None = asked.pop(PROMPT_TOKENS, None)
    raw = bool(asked.pop(RAW_PROMPT, False))
    dialect = Dialect.of(None) if raw or tokens is not None else prompt.dialect
    tools, switches = dialect.tools(request, asked, model=model), dialect.switches(asked)
    if tokens is None:
        shown = request.tools if request.tool_choice != "none" else ()
        tokens = prompt.tokens(request.messages, raw=raw, tools=shown, switches=switches)
    elif odd := [token for token in tokens if not 0 <= token < 1 << 31]:
        raise InputError(f"{odd[0]} in the prompt is outside of the model's vocabulary.", "Tokens count from 0 on.")
    eos = frozenset() if asked.pop("ignore_eos", False) else defaults.eos
    constraint, parts = dialect.answer(
        asked, tools, tokenizer=prompt.tokenizer, prompt=tokens, ends=eos, grammars=grammars
    )
    reported = asked.pop("prompt_logprobs", None)
    if reported is not None and not 0 <= reported <= MAX_LOGPROBS:
        raise InputError(f"prompt_logprobs is {reported}, but must be between 0 and {MAX_LOGPROBS}.")
    named = {name: asked.pop(name) for name in list(asked) if name in SAMPLING_FIELDS}
    given = {"temperature": request.temperature, "top_p": request.top_p, "seed": request.seed}
    named |= {name: value for name, value in given.items() if value is not None}
    made = Generation(
        prompt=tokens,
        max_tokens=_room(len(tokens), request.max_tokens, model, context, apart),
        sampling=Sampling(**(dict(defaults.sampling) | named)),
        stop_tokens=eos | frozenset(asked.pop("stop_token_ids", ())),
        constraint=constraint,
        adapter=adapter,
        priority=asked.pop("priority", 0) + (BACKGROUND if request.background else 0),
        deadline=None if request.timeout is None else time.monotonic() + request.timeout,
        prompt_logprobs=reported,
    )
    if made.sampling.min_tokens > made.max_tokens:
        raise InputError(
            f"min_tokens is {made.sampling.min_tokens}, but the answer has room for {made.max_tokens} tokens.",
            "Lower it, or raise max_tokens.",
        )
    for name in asked.keys() - {*_BEAMS, INCLUDE_STOP}:
        raise Unsupported(f"The parameter '{name}' is not supported by the model '{model}'.", "Leave it out.")
    return made, parts


def beams(request: ChatRequest, made: Generation) -> Mapping[str, Any] | None:
    """How `beam_search` is to look for the answer, as its arguments; None where the answer is not searched for.

    Raises `Unsupported` naming what a search cannot honour.
    """
    given = {name: request.extra[name] for name in _BEAMS if name in request.extra}
    width = given.pop("beam_width", 1)
    if width == 1:
        if given.get("early_stopping") or given.get("length_penalty", 1) != 1:
            raise Unsupported(f"'{next(iter(given))}' belongs to beam search.", "Give beam_width, or leave it out.")
        return None
    sampling = made.sampling
    beyond = {
        "a constraint": made.constraint, "an adapter": made.adapter, "'logprobs'": sampling.logprobs is not None,
        "'logit_bias'": sampling.logit_bias, "'repetition_penalty'": sampling.repetition_penalty != 1,
        "'presence_penalty'": sampling.presence_penalty, "'frequency_penalty'": sampling.frequency_penalty,
        "'min_tokens'": sampling.min_tokens, "'prompt_logprobs'": made.prompt_logprobs is not None,
    }  # fmt: skip
    for what in (what for what, asked in beyond.items() if asked):
        raise Unsupported(f"Beam search does not know {what}.", "Leave out one of the two.")
    return {"width": width, **given}


def _room(prompt: int, wanted: int | None, model: str, context: int, apart: bool) -> int:
    """How many tokens may be written."""
    room = context if apart else context - prompt
    if room < 1 or prompt > context:
        included = "" if apart else ", the answer included"
        raise TooLong(
            f"The prompt has {prompt} tokens, but the model '{model}' reads at most {context}{included}.",
            "Shorten the prompt.",
            prompt - context if prompt > context else 1 - room,
        )
    if wanted is None:
        return room
    if wanted < 1:
        raise InputError(f"max_tokens is {wanted}, but must be at least 1.")
    if wanted > room:
        raise TooLong(
            f"max_tokens is {wanted}, but after a prompt of {prompt} tokens the window of the model '{model}' "
            f"({context}) has room for {room}.",
            "Shorten the prompt, or ask for fewer tokens.",
            wanted - room,
        )
    return wanted
