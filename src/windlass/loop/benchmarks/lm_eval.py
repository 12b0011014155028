"""windlass's engine and servers as a model of lm-evaluation-harness, so that all of its tasks run on them.

    python -m windlass.loop.benchmarks.lm_eval run --model windlass --model_args pretrained=FOLDER --tasks arc_easy

is its own command line with one more model; in Python, importing this module registers it. `pretrained` is a model's
folder, a model of the workspace, or the address of a server. It needs `pip install lm-eval`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from windlass.core.errors import InputError, Unsupported, WindlassError
from windlass.core.protocols import Likelihood
from windlass.core.values import Message
from windlass.core.workspace import FOLDER, Workspace, find_workspace
from windlass.loop.benchmarks.models import EXACT, Opening, open_model

try:
    from lm_eval.api.model import LM
    from lm_eval.api.registry import register_model
except ImportError as missing:
    if __name__ == "__main__":
        raise SystemExit("lm-evaluation-harness is not installed: pip install lm-eval") from missing
    raise InputError("lm-evaluation-harness is not installed.", "pip install lm-eval") from missing

_log = logging.getLogger(__name__)
_BATCH = 256
_LIMITS = ("max_gen_toks", "max_new_tokens", "max_tokens", "max_completion_tokens")
_MET = ("until", "do_sample", "temperature", "seed", *_LIMITS)
"""What generation takes; anything else is refused by name."""


@register_model("windlass")
class WindlassLM(LM):  # type: ignore[misc, unused-ignore]
    """What is too long for the model is cut at its left, with a warning, as the harness's own models do it."""

    def __init__(
        self,
        pretrained: str,
        *,
        policy: str = EXACT,
        add_bos_token: bool | None = None,
        max_gen_toks: int = 256,
        model: str = "",
        api_key_env: str | None = None,
        batch_size: int | str | None = None,
        max_batch_size: int | None = None,
        device: str | None = None,
    ) -> None:
        """`model`: which of a server's models. `batch_size` and `device` are passed to every model: here the engine
        decides how much it reads at once, and runs where its weights are."""
        super().__init__()
        remote = pretrained.startswith(("http://", "https://"))
        how = Opening(policy, add_bos_token, not remote, model, api_key_env)
        self._model = open_model(None if remote else _workspace_for(pretrained), pretrained, how)
        self._max_gen_toks = max_gen_toks
        self._warned = 0

    @property
    def tokenizer_name(self) -> str:
        return str(self._model.digest or self._model.name).replace("/", "__")

    def loglikelihood(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[tuple[float, bool]]:
        found = self._in_batches(requests, lambda args: self._model.loglikelihood(args), "loglikelihood")
        return [(one.logprob, one.greedy) for one in found]

    def loglikelihood_rolling(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[float]:
        found = self._in_batches(
            requests, lambda args: self._model.rolling([text for (text,) in args]), "loglikelihood_rolling"
        )
        return [one.logprob for one in found]

    def generate_until(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[str]:
        groups: dict[str, list[int]] = {}
        for place, request in enumerate(requests):
            groups.setdefault(repr(request.args[1]), []).append(place)
        said: list[str] = [""] * len(requests)
        for places in groups.values():
            wishes = self._wishes(requests[places[0]].args[1])
            texts = _good(self._model.write([requests[place].args[0] for place in places], **wishes))
            for place, text in zip(places, texts, strict=True):
                said[place] = text
                self.cache_hook.add_partial("generate_until", requests[place].args, text)
        self._tell_truncated()
        return said

    def apply_chat_template(self, chat_history: Sequence[Mapping[str, str]], add_generation_prompt: bool = True) -> str:
        """An answer that is to be gone on with stands behind the opening of its turn."""
        render = getattr(self._model, "render", None)
        if render is None:
            raise Unsupported(f"'{self._model.name}' keeps its chat template to itself.", "Give the model's folder.")
        turns = [Message(one["role"], one["content"]) for one in chat_history]  # type: ignore[arg-type]
        if add_generation_prompt or turns[-1].role != "assistant":
            return str(render(turns, opening=add_generation_prompt))
        return str(render(turns[:-1], opening=True)) + turns[-1].text

    def chat_template(self, chat_template: bool | str = False) -> str | None:
        facts: Mapping[str, Any] = getattr(self._model, "facts", dict)()
        return facts.get("chat_template") if chat_template else None

    def _in_batches(
        self, requests: Sequence[Any], score: Callable[[list[Any]], Sequence[Likelihood | WindlassError]], what: str
    ) -> list[Likelihood]:
        """In an order in which neighbours begin alike, so that what they share is read once."""
        order = sorted(range(len(requests)), key=lambda place: requests[place].args)
        found: dict[int, Likelihood] = {}
        for start in range(0, len(order), _BATCH):
            places = order[start : start + _BATCH]
            replies = _good(score([requests[place].args for place in places]))
            for place, reply in zip(places, replies, strict=True):
                found[place] = reply
                answer = reply.logprob if what == "loglikelihood_rolling" else (reply.logprob, reply.greedy)
                self.cache_hook.add_partial(what, requests[place].args, answer)
        self._tell_truncated()
        return [found[place] for place in range(len(requests))]

    def _wishes(self, given: Mapping[str, Any]) -> dict[str, Any]:
        if unknown := [name for name in given if name not in _MET]:
            raise Unsupported(f"generation_kwargs: '{unknown[0]}' is not supported.", f"Known: {', '.join(_MET)}.")
        until = given.get("until") or []
        limits = [given[name] for name in _LIMITS if given.get(name) is not None]
        return {
            "max_tokens": int(limits[0]) if limits else self._max_gen_toks,
            "stop": [until] if isinstance(until, str) else [one for one in until if one],
            "temperature": float(given.get("temperature") or 0.0) if given.get("do_sample") is not False else 0.0,
            "seed": int(given.get("seed", 0)),
        }

    def _tell_truncated(self) -> None:
        truncated = getattr(self._model, "truncated", 0)
        if truncated > self._warned:
            _log.warning(
                "%d requests were too long for the model and were cut at their left.", truncated - self._warned
            )
            self._warned = truncated


def _good(replies: Sequence[Any]) -> list[Any]:
    """The harness knows no item that failed."""
    for reply in replies:
        if isinstance(reply, WindlassError):
            raise reply
    return list(replies)


def _workspace_for(name: str) -> Workspace | None:
    """The workspace that a model's name is looked up in; none for a folder."""
    if (Path(name) / "config.json").is_file():
        return None
    here = Path.cwd()
    return find_workspace() if any((one / FOLDER).is_dir() for one in (here, *here.parents)) else None


def main() -> None:
    """lm-eval's own command line; what windlass refuses is said in two lines."""
    from lm_eval.__main__ import cli_evaluate

    try:
        cli_evaluate()
    except WindlassError as error:
        raise SystemExit(f"windlass: {error.message}\n          {error.hint}") from None


if __name__ == "__main__":
    main()
