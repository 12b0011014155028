"""Encoder-decoders as served models: what transformers writes, many at once, and every way to end."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from engine_world import END, byte_tokenizer

from windlass.build.transformer.hf import load_model
from windlass.core.errors import InputError, NotFound, Unsupported
from windlass.core.protocols import ChatModel
from windlass.core.values import ChatRequest, Message
from windlass.serve.engine.engine import Closed
from windlass.serve.engine.local import LocalModel
from windlass.serve.engine.request import Generation
from windlass.serve.engine.sampling.settings import Sampling
from windlass.serve.engine.source import SourceEngine

SOURCES = [[5, 9, 33, 7], [40, 41, 42, 43, 44, 45, 46], [3], [100, 7, 7, 7, 80]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("t5")
    tokenizer = byte_tokenizer()
    tokenizer.save(str(path / "tokenizer.json"))
    end = tokenizer.token_to_id(END)
    config = transformers.T5Config(
        vocab_size=tokenizer.get_vocab_size(), d_model=32, d_kv=8, d_ff=48, num_layers=2, num_heads=4,
        relative_attention_num_buckets=8, relative_attention_max_distance=20, feed_forward_proj="gated-gelu",
        initializer_factor=3.0, decoder_start_token_id=1, eos_token_id=end, pad_token_id=2, n_positions=40,
    )  # fmt: skip
    torch.manual_seed(0)
    transformers.T5ForConditionalGeneration(config).eval().save_pretrained(path)
    (path / "tokenizer_config.json").write_text(json.dumps({"eos_token": END}))
    return path


@pytest.fixture
def engine(folder: Path) -> Any:
    made = SourceEngine(load_model(folder), start=1, max_batch=3)
    yield made
    made.close()


def asked(source: list[int], most: int = 12, **more: Any) -> Generation:
    return Generation(**{"prompt": source, "max_tokens": most, "sampling": Sampling(temperature=0), **more})


def test_writes_what_transformers_writes_many_at_once(folder: Path, engine: SourceEngine) -> None:
    theirs = transformers.T5ForConditionalGeneration.from_pretrained(folder).eval()
    runs = [engine.submit(asked(source)) for source in SOURCES]
    for source, running in zip(SOURCES, runs, strict=True):
        found = [token.id for token in running]
        expected = theirs.generate(
            torch.tensor([source]), max_new_tokens=12, do_sample=False, eos_token_id=None, pad_token_id=2
        )
        assert found == expected[0, 1:].tolist() and running.finish == "length"
    assert engine.stats().requests == len(SOURCES) and engine.stats().written_tokens == 12 * len(SOURCES)


def test_a_seed_gives_the_same_text_in_any_company(engine: SourceEngine) -> None:
    drawn = Sampling(temperature=1.0, top_p=0.9, seed=5)
    alone = [token.id for token in engine.submit(asked(SOURCES[0], sampling=drawn))]
    runs = [engine.submit(asked(source, sampling=drawn)) for source in SOURCES]
    assert [token.id for token in runs[0]] == alone
    assert len({tuple(token.id for token in running) for running in runs[1:]}) > 1


def test_ends_by_stop_cancel_and_deadline(engine: SourceEngine) -> None:
    whole = [token.id for token in engine.submit(asked(SOURCES[1]))]
    stop = whole[3]
    stopped = engine.submit(asked(SOURCES[1], stop_tokens=frozenset([stop])))
    assert [token.id for token in stopped] == whole[: whole.index(stop) + 1] and stopped.finish == "stop"
    late = engine.submit(asked(SOURCES[1], deadline=time.monotonic() - 1))
    assert list(late) == [] and late.finish == "deadline"
    cancelled = engine.submit(asked(SOURCES[1], most=40))
    next(iter(cancelled))
    cancelled.cancel()
    assert cancelled.wait(30) and cancelled.finish in ("cancelled", "length")


def test_a_request_that_fails_fails_alone(engine: SourceEngine) -> None:
    class Nothing:
        ended = False

        def allow(self, logits_V: torch.Tensor) -> None:
            logits_V.fill_(float("-inf"))

    bad = engine.submit(asked(SOURCES[0], constraint=Nothing()))
    good = engine.submit(asked(SOURCES[1]))
    assert len(list(good)) == 12
    with pytest.raises(Exception, match="No token can be chosen"):
        list(bad)


@pytest.mark.parametrize(
    ("wrong", "error", "said"),
    [
        ({"prompt": []}, InputError, "source is empty"),
        ({"prompt": [5000]}, InputError, "outside of the model's"),
        ({"prompt": [1] * 41}, InputError, "The source has 41 tokens, .* 1 to 40"),
        ({"max_tokens": 41}, InputError, "max_tokens has 41 tokens, .* 1 to 40"),
        ({"adapter": "x"}, NotFound, "There is no adapter 'x'"),
        ({"prompt_logprobs": 1}, Unsupported, "'prompt_logprobs'"),
    ],
)
def test_what_cannot_be_served_is_refused(engine: SourceEngine, wrong: dict[str, Any], error: Any, said: str) -> None:
    with pytest.raises(error, match=said):
        engine.submit(asked(**{"source": [3], **wrong}))


def test_close_cancels_or_drains(folder: Path) -> None:
    for drain, ends in ((True, {"length"}), (False, {"cancelled", "length"})):
        engine = SourceEngine(load_model(folder), start=1)
        runs = [engine.submit(asked(source, most=30)) for source in SOURCES]
        engine.close(drain=drain)
        assert {running.finish for running in runs} <= ends
        with pytest.raises(Closed):
            engine.submit(asked(SOURCES[0]))


def test_is_a_chat_model_whose_answer_has_a_window_of_its_own(folder: Path) -> None:
    model = LocalModel.load(folder)
    assert isinstance(model, ChatModel)
    request = ChatRequest([Message("user", "a" * 38)], temperature=0, max_tokens=20)
    answer = model.complete(request)
    assert answer.usage.output == 20 and answer.finish_reason in ("length", "stop")
    pieces = "".join(delta.text for delta in model.stream(request))
    assert pieces == answer.message.text
    with pytest.raises(InputError, match="reads at most 40"):
        model.complete(ChatRequest([Message("user", "abcdefghij" * 10)]))
    assert model.stats()["requests"] >= 2
    model.close()


def test_takes_the_policy_that_it_has_and_no_other(folder: Path) -> None:
    for policy in ("auto", "fp32"):
        assert LocalModel.load(folder, policy=policy).arithmetic == "linear maps in fp32"
    with pytest.raises(Unsupported, match="takes no policy"):
        LocalModel.load(folder, policy="int8")
