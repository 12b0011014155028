"""Examples that are longer than the model reads: one setting, of one meaning with every objective."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from encoder_rows import asked as asked_of_encoder
from encoder_rows import rows_for, written
from encoder_world import save_encoder
from tuned_world import asked, echoes, make_home

from windlass.build.adapt.opening import open_inputs
from windlass.build.adapt.sections import ObjectiveKind, TuneDataSettings
from windlass.build.adapt.settings import TuneSettings
from windlass.build.adapt.tuning import OBJECTIVES
from windlass.core.errors import InputError
from windlass.core.workspace import Workspace

LONG = "cat " * 50
ENCODERS: dict[str, dict[str, Any]] = {
    "classify": {"text": LONG, "label": "animal"},
    "regress": {"text": LONG, "score": 70.0},
    "tag": {"tokens": LONG.split(), "tags": ["O"] * 50},
    "extract": {"question": LONG, "context": "the old cat", "answer": "cat"},
    "rank": {"query": "cat", "positive": LONG, "negatives": ["mat"]},
    "pairs": {"query": "cat", "document": LONG, "label": 1},
    "embed": {"query": "cat", "positive": ["mat", LONG]},
    "scored": {"sentence1": "cat", "sentence2": LONG, "score": 1.0},
}
RED = "red " * 90
DECODERS: dict[str, dict[str, Any]] = {
    "sft": {"messages": [{"role": "user", "content": "red"}, {"role": "assistant", "content": RED}]},
    "dpo": {"prompt": "red", "chosen": "blue", "rejected": RED},
    "reward": {"prompt": "red", "chosen": "blue", "rejected": RED},
    "kto": {"prompt": RED, "completion": "blue", "label": True},
    "grpo": {"question": RED, "answer": "7"},
}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_home(tmp_path_factory.mktemp("home"))


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("base") / "bert"
    save_encoder(folder, "Bert", "Model")
    return folder


def prepared(ws: Workspace, settings: TuneSettings) -> Any:
    return OBJECTIVES[settings.objective.kind](open_inputs(ws, settings))


@pytest.mark.parametrize("kind", ENCODERS)
def test_encoders_refuse_drop_or_cut(bert: Path, tmp_path: Path, kind: str) -> None:
    plain = rows_for(kind, 20)
    with Workspace(tmp_path) as ws:

        def of(rows: list[dict[str, Any]], overlong: Any) -> Any:
            path = written(tmp_path / "rows.jsonl", rows)
            data = TuneDataSettings(str(path), batch=8, heldout=0.2, overlong=overlong)
            return prepared(ws, asked_of_encoder(bert, path, kind, data=data))

        with pytest.raises(InputError, match=r"(?s)row 21: the (text|question) has 5\d tokens.*data\.overlong=drop"):
            of([*plain, ENCODERS[kind]], "refuse")
        less = of([*plain, ENCODERS[kind]], "drop")
        assert "left out: 1 of 21 " in less.lines[0]
        without = of(plain, "drop")
        assert less.facts == without.facts and less.lines[1:] == without.lines  # as if it had never been there
        with pytest.raises(InputError, match=r"All 2 rows are longer|has 52 tokens, more than half"):
            of([ENCODERS[kind]] * 2, "drop")
        if kind == "extract":
            with pytest.raises(InputError, match="'extract' crops nothing: it reads long texts through several"):
                of(plain, "cut")
        else:
            cut = of([*plain, ENCODERS[kind]], "cut")
            assert cut.facts["cut"] == 1 and cut.positions <= 40
            assert any(line.startswith("1 ") and "longer than the model reads" in line for line in cut.lines)


@pytest.mark.parametrize("kind", DECODERS)
def test_decoders_refuse_or_drop_and_never_crop(home: Path, tmp_path: Path, kind: ObjectiveKind) -> None:
    plain = {
        "sft": echoes(8),
        "dpo": [{"prompt": f"red {n}", "chosen": "blue", "rejected": "white"} for n in range(8)],
        "kto": [{"prompt": f"red {n}", "completion": "blue", "label": n % 2 == 0} for n in range(8)],
        "grpo": [{"question": f"red {n}", "answer": "7"} for n in range(8)],
    }
    rows = plain.get(kind, plain["dpo"])
    path = written(tmp_path / "rows.jsonl", [*rows, DECODERS[kind]])
    more = {"objective__kind": kind} | ({"rl__rewards": ["number"], "rl__answer_tokens": 8} if kind == "grpo" else {})
    with Workspace(home) as ws:
        with pytest.raises(InputError, match=r"longer than a row of 64 tokens|row 9: the prompt has"):
            prepared(ws, asked(path, **more))
        less = prepared(ws, asked(path, **more, data__overlong="drop"))
        assert "left out: 1 of 9 " in "\n".join(less.lines)
        with pytest.raises(InputError, match="half an answer teaches to stop"):
            asked(path, **more, data__overlong="cut")
