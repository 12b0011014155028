from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("tokenizers")

from engine_world import make_folder  # noqa: E402

from windlass.build.transformer.decoder import Decoder  # noqa: E402
from windlass.build.transformer.hf import load_decoder  # noqa: E402
from windlass.core.errors import InputError  # noqa: E402
from windlass.serve.engine.sampling import beam  # noqa: E402
from windlass.serve.engine.sampling.beam import beam_search  # noqa: E402


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_folder(tmp_path_factory.mktemp("model") / "base")


@pytest.fixture(scope="module")
def decoder(folder: Path) -> Decoder:
    return load_decoder(folder).eval().requires_grad_(False)


PROMPT = [5, 17, 120, 44, 3]


@pytest.mark.parametrize("width", [1, 2, 5])
@pytest.mark.parametrize("stops", [0, 1, 40])
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"length_penalty": 0.0, "early_stopping": "never"},
        {"length_penalty": 2.0, "early_stopping": "never"},
        {"length_penalty": -1.0},
        {"early_stopping": True},
        {"length_penalty": 0.6, "early_stopping": True},
    ],
    ids=str,
)
def test_beams_are_those_of_transformers(
    folder: Path, decoder: Decoder, width: int, stops: int, settings: dict[str, Any]
) -> None:
    import transformers

    peer = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    peer.generation_config.eos_token_id = None
    stop_tokens = list(range(0, 7 * stops, 7))
    prompt = torch.tensor([PROMPT])
    if width == 1:  # transformers then decodes greedily, whatever else is said
        made = peer.generate(
            prompt, max_new_tokens=12, do_sample=False, eos_token_id=stop_tokens or None, pad_token_id=0,
            attention_mask=torch.ones_like(prompt),
        )  # fmt: skip
        ours = beam_search(decoder, PROMPT, width=1, max_tokens=12, stop_tokens=stop_tokens, early_stopping=True)
        assert list(ours[0].tokens) == made[0, len(PROMPT) :].tolist()
        return
    made = peer.generate(
        prompt, max_new_tokens=12, num_beams=width, num_return_sequences=width, do_sample=False,
        eos_token_id=stop_tokens or None, pad_token_id=0, return_dict_in_generate=True, output_scores=True,
        attention_mask=torch.ones_like(prompt), **settings,
    )  # fmt: skip
    ours = beam_search(decoder, PROMPT, width=width, max_tokens=12, stop_tokens=stop_tokens, **settings)
    assert len(ours) == width
    for mine, theirs, score in zip(ours, made.sequences, made.sequences_scores, strict=True):
        written = theirs[len(PROMPT) :].tolist()
        assert list(mine.tokens) == written[: len(mine.tokens)] and not any(written[len(mine.tokens) :])
        assert mine.score == pytest.approx(float(score), rel=1e-4)
        assert mine.finish == ("stop" if mine.tokens[-1] in stop_tokens else "length")


def test_beams_as_wide_as_all_there_is_find_the_likeliest_answer(decoder: Decoder) -> None:
    """Nothing is ever dropped where the width is that of the vocabulary."""
    few = [token for token in range(decoder.config.vocab_size) if token % 20 == 0]
    assert len(few) < beam.WIDEST
    with torch.no_grad():
        limited = load_decoder_with(decoder, few)
        best = max(
            itertools.product(few, repeat=2),
            key=lambda pair: sum(
                float(limited(torch.tensor([[*PROMPT, *pair[:n]]]))[0, -1].log_softmax(-1)[pair[n]]) for n in range(2)
            ),
        )
    assert tuple(beam_search(limited, PROMPT, width=len(few), max_tokens=2)[0].tokens) == best


def load_decoder_with(decoder: Decoder, tokens: list[int]) -> Decoder:
    """The decoder, unable to write anything but `tokens`."""
    import copy

    limited = copy.deepcopy(decoder)
    assert limited.head is not None
    bias = torch.full((decoder.config.vocab_size,), float("-inf"))
    bias[tokens] = 0
    limited.head_bias = torch.nn.Parameter(bias, requires_grad=False)
    return limited


def test_logprobs_are_those_of_the_model_and_prompts_are_read_in_parts(
    decoder: Decoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    prompt = [(7 * i) % 250 for i in range(60)]
    whole = beam_search(decoder, prompt, width=3, max_tokens=40)
    monkeypatch.setattr(beam, "CHUNK", 7)
    turns = 0

    def turn(work: Any) -> None:
        nonlocal turns
        turns += 1
        work()

    parts = beam_search(decoder, prompt, width=3, max_tokens=40, turn=turn)
    assert [beam.tokens for beam in parts] == [beam.tokens for beam in whole]
    assert turns == 9 + 40
    with torch.inference_mode():
        for found in whole:
            logits = decoder(torch.tensor([[*prompt, *found.tokens]]))[0].log_softmax(-1)
            exact = sum(float(logits[len(prompt) - 1 + i, token]) for i, token in enumerate(found.tokens))
            assert found.logprob == pytest.approx(exact, abs=1e-3)
            assert found.score == pytest.approx(found.logprob / 40)


@pytest.mark.parametrize(
    ("change", "match"),
    [({"width": 0}, "0 beams"), ({"width": 65}, "65 beams"), ({"max_tokens": 0}, "at least one"),
     ({"max_tokens": 124}, "make 129.*at most 128"), ({"early_stopping": "maybe"}, "early_stopping is 'maybe'")],
)  # fmt: skip
def test_absurd_searches_are_refused(decoder: Decoder, change: dict[str, Any], match: str) -> None:
    with pytest.raises(InputError, match=match):
        beam_search(decoder, PROMPT, **{"width": 2, "max_tokens": 4, **change})
