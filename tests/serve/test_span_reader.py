"""Answers in texts against transformers, by looking at every span of every window."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import transformers
from encoder_world import save_encoder

from windlass.core.errors import InputError
from windlass.core.protocols import Extracting
from windlass.serve.encoders.span_reader import SpanReader

QUESTION = "the old pump"
TEXTS = ["the cat sat on a mat", "bread rises " * 3 + "in the old violin", "water moves " * 40 + "a cat"]


@pytest.mark.parametrize("family", ["Bert", "Roberta", "DistilBert", "ModernBert"])
def test_the_likeliest_span_of_all_windows(family: str, tmp_path: Path) -> None:
    theirs = save_encoder(tmp_path, family, "ForQuestionAnswering")
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path)
    found = SpanReader.from_folder(tmp_path).find(QUESTION, TEXTS)
    for text, span in zip(TEXTS, found, strict=True):
        assert span is not None
        read = tokenizer(
            QUESTION, text, truncation="only_second", max_length=40, stride=10, return_overflowing_tokens=True,
            return_offsets_mapping=True, return_token_type_ids=True,
        )  # fmt: skip
        best, none = (float("-inf"), 0, 0), float("inf")
        for number, ids in enumerate(read["input_ids"]):
            inputs = {"input_ids": torch.tensor([ids])}
            if family == "Bert":
                inputs["token_type_ids"] = torch.tensor([read["token_type_ids"][number]])
            with torch.inference_mode():
                out = theirs(**inputs)
            starts, ends = out.start_logits[0].tolist(), out.end_logits[0].tolist()
            none = min(none, starts[0] + ends[0])
            inside = [place for place, owner in enumerate(read.sequence_ids(number)) if owner == 1]
            spans = read["offset_mapping"][number]
            for i in inside:
                for j in (j for j in inside if i <= j < i + 30):
                    best = max(best, (starts[i] + ends[j], spans[i][0], spans[j][1]))
        assert text[best[1] : best[2]] == span.text and span.start == best[1]
        assert span.margin == pytest.approx(best[0] - none, abs=1e-4)


def test_a_question_without_room_for_a_text_is_refused(tmp_path: Path) -> None:
    save_encoder(tmp_path, "Bert", "ForQuestionAnswering")
    with pytest.raises(InputError, match="more than half of the 40 tokens"):
        SpanReader.from_folder(tmp_path).find("cat " * 25, TEXTS)


def test_a_text_without_a_word_has_no_answer(tmp_path: Path) -> None:
    save_encoder(tmp_path, "Bert", "ForQuestionAnswering")
    reader = SpanReader.from_folder(tmp_path)
    assert reader.find(QUESTION, [""]) == [None] and reader.find(QUESTION, []) == []
    with pytest.raises(InputError, match="question is empty"):
        reader.find(" ", TEXTS)


def test_only_what_is_surer_than_the_folders_threshold_is_an_answer(tmp_path: Path) -> None:
    save_encoder(tmp_path, "Bert", "ForQuestionAnswering")
    free = SpanReader.from_folder(tmp_path)
    all_ = [one for one in free.find(QUESTION, TEXTS) if one is not None]
    margins = sorted(one.margin for one in all_)
    assert isinstance(free, Extracting) and len(all_) == len(TEXTS) and margins[0] < margins[1]
    path = tmp_path / "config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps(config | {"no_answer_threshold": margins[0]}))
    reader = SpanReader.from_folder(tmp_path)
    assert [one is not None for one in reader.find(QUESTION, TEXTS)] == [one.margin > margins[0] for one in all_]
    assert SpanReader.from_folder(tmp_path, threshold=margins[-1]).find(QUESTION, TEXTS) == [None] * len(TEXTS)
    assert len({one.digest for one in (free, reader, SpanReader.from_folder(tmp_path, threshold=0.0))}) == 3
    path.write_text(json.dumps(config | {"no_answer_threshold": "high"}))
    with pytest.raises(InputError, match="no_answer_threshold is 'high'"):
        SpanReader.from_folder(tmp_path)
