"""What every `LanguageModel` must do. A new implementation adds itself to `MAKERS`."""

from __future__ import annotations

import contextlib
import importlib.util
import math
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.evaluate.harness.harness_world import Nearby

from windlass.core.errors import WindlassError
from windlass.core.protocols import LanguageModel, Likelihood

Made = contextlib.AbstractContextManager[LanguageModel]


@contextlib.contextmanager
def fake(folder: Path) -> Iterator[LanguageModel]:
    yield Nearby(answers=["an answer"])


@contextlib.contextmanager
def engine(folder: Path) -> Iterator[LanguageModel]:
    """A small random decoder in windlass's own engine."""
    _needs("torch", "tokenizers")
    from tests.serve.engine_world import make_folder

    from windlass.loop.benchmarks.models import open_model

    with contextlib.closing(open_model(None, str(make_folder(folder / "model")))) as model:
        yield model


@contextlib.contextmanager
def endpoint(folder: Path) -> Iterator[LanguageModel]:
    """The same behind windlass's own server."""
    _needs("torch", "tokenizers", "uvicorn")
    from tests.serve.engine_world import make_folder

    from windlass.loop.benchmarks.models import open_model
    from windlass.serve.app import create_app
    from windlass.serve.engine.local import LocalModel
    from windlass.serve.run import ServerThread

    local = LocalModel.load(make_folder(folder / "model"), policy="fp32")
    with ServerThread(create_app({"model": local}, {})) as server:
        model = open_model(None, f"{server.url}/v1")
        yield model
        model.close()
    local.close()


def _needs(*packages: str) -> None:
    for package in packages:
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} is not installed")


MAKERS: dict[str, Callable[[Path], Made]] = {"fake": fake, "engine": engine, "endpoint": endpoint}


@pytest.fixture(scope="module", params=list(MAKERS))
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LanguageModel]:
    with MAKERS[request.param](tmp_path_factory.mktemp("model")) as made:
        yield made


def good(replies: list[Likelihood | WindlassError]) -> list[Likelihood]:
    found = [one for one in replies if isinstance(one, Likelihood)]
    assert len(found) == len(replies), replies
    return found


def test_it_is_one_and_says_its_name(model: LanguageModel) -> None:
    assert isinstance(model, LanguageModel) and model.name
    assert model.digest is None or len(model.digest) == 64


def test_replies_come_in_order_and_do_not_hang_on_their_company(model: LanguageModel) -> None:
    pairs = [("the cat sat on", f" {word}") for word in ("the mat", "the end", "the cat", "äöü")] * 5 + [
        ("日本", " mat")
    ]
    together = good(model.loglikelihood(pairs))
    alone = [good(model.loglikelihood([pair]))[0] for pair in reversed(pairs[-5:])][::-1]
    for one, other in zip(together[-5:], alone):
        assert (one.greedy, one.tokens) == (other.greedy, other.tokens)
        assert one.logprob == pytest.approx(other.logprob, abs=1e-3)
    assert all(one.logprob < 0 and math.isfinite(one.logprob) and one.tokens > 0 for one in together)
    assert len({round(one.logprob, 3) for one in together}) == 5


def test_the_chances_of_continuations_multiply(model: LanguageModel) -> None:
    """log p(b c | a) = log p(b | a) + log p(c | a b), where tokens end where the texts do."""
    whole, first, second = good(
        model.loglikelihood([("the cat", " sat on"), ("the cat", " sat"), ("the cat sat", " on")])
    )
    if whole.tokens != first.tokens + second.tokens:
        pytest.skip("tokens cross the border")
    assert whole.logprob == pytest.approx(first.logprob + second.logprob, abs=1e-3)


def test_white_space_before_a_continuation_is_its_own(model: LanguageModel) -> None:
    ended, begun = good(model.loglikelihood([("the cat ", "sat"), ("the cat", " sat")]))
    if model.name != "nearby":  # whose tokens are characters
        assert ended == begun or ended.logprob == pytest.approx(begun.logprob, abs=1e-3)


def test_no_requests_no_replies(model: LanguageModel) -> None:
    assert model.loglikelihood([]) == model.rolling([]) == model.write([], max_tokens=3) == []


def test_it_writes_one_text_for_each_prompt(model: LanguageModel) -> None:
    said = model.write(["the cat", "the end", "the cat"], max_tokens=5)
    assert len(said) == 3 and said[0] == said[2] and all(isinstance(one, str) for one in said)


def test_a_text_that_is_too_long_is_an_error_in_its_place(model: LanguageModel) -> None:
    if model.name == "nearby":
        pytest.skip("it reads texts of any length")
    short, long = model.loglikelihood([("the cat", " sat"), ("the cat " * 200, " sat")])
    assert isinstance(short, Likelihood)
    assert isinstance(long, WindlassError) and "128" in long.message
