"""Texts become tokens, and tokens scores, as in lm-evaluation-harness with transformers' models."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import pytest
from engine_world import END, TEMPLATE, make_folder

from windlass.core.errors import InputError, TooLong, Unsupported
from windlass.core.protocols import Likelihood
from windlass.core.values import Message
from windlass.serve.engine.local import LocalModel
from windlass.serve.engine.scoring.language import EngineLanguageModel

torch = pytest.importorskip("torch")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_folder(tmp_path_factory.mktemp("scoring") / "model", template=TEMPLATE)


@contextlib.contextmanager
def opened(folder: Path, **how: Any) -> Any:
    local = LocalModel.load(folder, policy="fp32")
    try:
        yield EngineLanguageModel(local, **how)
    finally:
        local.close()


@pytest.fixture(scope="module")
def theirs(folder: Path) -> Any:
    transformers = pytest.importorskip("transformers")
    return transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)


def score(model: Any, context: list[int], continuation: list[int]) -> tuple[float, bool]:
    with torch.inference_mode():
        logprobs = model(torch.tensor([[*context, *continuation]])).logits[0].log_softmax(-1)
    rows = logprobs[len(context) - 1 : -1]
    total = float(sum(row[token] for row, token in zip(rows, continuation)))
    return total, rows.argmax(-1).tolist() == continuation


@pytest.mark.parametrize("bos", [None, True])
def test_scores_are_those_of_transformers(folder: Path, theirs: Any, bos: bool | None) -> None:
    pairs = [
        ("the cat sat", " on the mat"),
        ("the cat sat ", "on"),
        ("日本 äöü", " the end"),
        ("the\n\n", "cat"),
        ("", "the cat"),
    ]
    with opened(folder, bos=bos) as model:
        found = model.loglikelihood(pairs)
        encode, end = model._tokenizer.encode, model._tokenizer.token_to_id(END)
    for (context, continuation), one in zip(pairs, found, strict=True):
        stripped = context.rstrip()
        whole = encode(context + continuation, add_special_tokens=False).ids
        before = encode(stripped, add_special_tokens=False).ids
        after = whole[len(before) :]
        if not before or bos:
            before = [end, *before]
        expected = score(theirs, before, after)
        assert (one.logprob, one.greedy) == (pytest.approx(expected[0], abs=1e-3), expected[1]), (context, continuation)
        assert one.tokens == len(after)


def test_a_text_that_begins_as_the_model_does_gets_no_second_beginning(folder: Path) -> None:
    with opened(folder, bos=True) as model:
        plain, marked = model.loglikelihood([("the cat", " sat"), (f"{END}the cat", " sat")])
        assert plain.logprob == pytest.approx(marked.logprob, abs=1e-4)


def test_whole_texts_are_read_window_by_window(folder: Path, theirs: Any) -> None:
    long = "the cat sat on the mat, the end " * 20
    with opened(folder) as model:
        found, none = model.rolling([long, ""])
        ids, end = model._tokenizer.encode(long).ids, model._tokenizer.token_to_id(END)
    assert isinstance(none, InputError) and found.tokens == len(ids) > 128
    expected, done = 0.0, 0
    while done < len(ids):  # as lm-evaluation-harness cuts them
        size = min(128, len(ids) - done)
        before = [end] if done == 0 else ids[done + size - 129 : done]
        expected += score(theirs, before, ids[done : done + size])[0]
        done += size
    assert found.logprob == pytest.approx(expected, rel=1e-4)


def test_what_is_too_long_is_an_error_or_cut_and_counted(folder: Path, theirs: Any) -> None:
    pair = ("the cat " * 200, " sat")
    with opened(folder) as model:
        (refused,) = model.loglikelihood([pair])
        assert isinstance(refused, TooLong) and "128" in refused.message
    with opened(folder, truncate=True) as model:
        (cut,) = model.loglikelihood([pair])
        whole = model._tokenizer.encode("".join(pair)).ids
        assert model.truncated == 1 and isinstance(cut, Likelihood)
    expected, _ = score(theirs, whole[-129 : -cut.tokens], whole[-cut.tokens :])
    assert cut.logprob == pytest.approx(expected, abs=1e-3)


def test_conversations_go_through_the_chat_template(folder: Path, theirs: Any) -> None:
    turns = [Message("system", "Be brief."), Message("user", "the cat")]
    with opened(folder) as model:
        (found,) = model.loglikelihood([(turns, "sat")])
        text = f"{END}<system>Be brief.</><user>the cat</><assistant>"
        assert model.render(turns) == text
        whole, before = (model._tokenizer.encode(one, add_special_tokens=False).ids for one in (text + "sat", text))
        said = model.write([turns, "the cat"], max_tokens=4)
    assert found.logprob == pytest.approx(score(theirs, before, whole[len(before) :])[0], abs=1e-3)
    assert len(said) == 2 and said[0] != said[1]


def test_a_base_model_takes_no_conversation(tmp_path: Path) -> None:
    with opened(make_folder(tmp_path / "base")) as model, pytest.raises(Unsupported, match="no chat template"):
        model.loglikelihood([([Message("user", "hi")], "x")])


def test_greedy_writing_is_what_scores_as_greedy(folder: Path) -> None:
    with opened(folder) as model:
        (said,) = model.write(["the cat"], max_tokens=6)
        (found,) = model.loglikelihood([("the cat", said)])
    assert isinstance(said, str)
    if found.tokens == 6:  # else the text is made of other tokens than it was written in
        assert found.greedy


def test_a_continuation_without_a_token_of_its_own(folder: Path) -> None:
    with opened(folder) as model:
        (found,) = model.loglikelihood([("the cat", "")])
        assert isinstance(found, InputError) and "no token" in found.message
