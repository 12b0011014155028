"""What a model card says to type works: the tuned model is served, as one model or beside its base, and written to as
it was trained."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

pytest.importorskip("starlette")
from encoder_rows import asked as asked_of_encoder
from encoder_rows import rows_for, written
from encoder_world import save_encoder
from tuned_world import asked, echoes, make_home, write_rows

from windlass.build.adapt.data.templates import named_template
from windlass.build.adapt.effort import Stopwatch
from windlass.build.adapt.sections import AdapterSettings, TuneRunSettings
from windlass.build.adapt.tuning import tune
from windlass.build.tokenizer import load_specials, load_tokenizer
from windlass.build.training.distributed.workers import ALONE
from windlass.cli.main import main
from windlass.core.chat_template import ChatTemplate
from windlass.core.errors import Unsupported
from windlass.core.protocols import Adaptable
from windlass.core.values import ChatRequest, Message
from windlass.core.workspace import Workspace
from windlass.loop.lineup import load_lineup


def commands_of(card: str) -> list[list[str]]:
    """What stands between back quotes below "Use" and begins with the program's name."""
    used = card.partition("## Use")[2].partition("##")[0]
    return [shlex.split(command)[1:] for command in re.findall(r"`(windlass [^`]*)`", used)]


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("base") / "bert"
    save_encoder(folder, "Bert", "Model")
    return folder


@pytest.mark.parametrize("kind", ["classify", "tag", "embed"])
def test_an_encoders_adapter_is_merged_and_served_by_name(bert: Path, tmp_path: Path, kind: str) -> None:
    path = written(tmp_path / "rows.jsonl", rows_for(kind, 20))
    lora = AdapterSettings("lora", rank=2)
    with Workspace(tmp_path) as ws:
        model = tune(ws, asked_of_encoder(bert, path, kind, adapter=lora), say=lambda line: None)
    found = commands_of((model.path / "README.md").read_text(encoding="utf-8"))
    assert found[0] == ["adapters", "merge", "tuned", "--name", "tuned-whole", "--base", str(bert)]
    assert main([*found.pop(0), "--workspace", str(tmp_path)]) == 0
    with Workspace(tmp_path) as ws:
        every = load_lineup(ws, [])
        if kind == "tag":
            assert not found and "tags words" in "".join(every.lacks) and "tuned-whole" not in every.names
            with pytest.raises(Unsupported, match="encoder that tags words"):
                load_lineup(ws, ["tuned-whole"])
        else:
            assert found == [["serve", "tuned-whole"]]
            for lineup in (every, load_lineup(ws, ["tuned-whole"])):
                assert "tuned-whole" in (lineup.classifiers if kind == "classify" else lineup.embedders)


def test_an_adapter_is_written_to_by_the_template_that_it_was_trained_with(tmp_path: Path) -> None:
    home = make_home(tmp_path)
    rows = write_rows(home / "rows.jsonl", echoes(20))
    asked_of = [{"role": "user", "content": "red"}]
    with Workspace(home) as ws:
        base = ws.artifacts.get("base")
        tuned = tune(ws, asked(rows, model__template="plain", schedule__steps=1), say=lambda line: None)
        plain = named_template("plain", base.path, load_tokenizer(base.path), load_specials(base.path))
        serve, merge = commands_of((tuned.path / "README.md").read_text(encoding="utf-8"))
        assert serve == ["serve", "base@1", "--lora", "tuned=tuned"]
        lineup = load_lineup(ws, [serve[1]], adapters=[("tuned", "tuned")], max_batch=1)
        served = lineup.models["base"]
        assert isinstance(served, Adaptable)
        beside = served.adapters["tuned"]
        wanted = load_tokenizer(base.path).encode(
            plain.render(asked_of, add_generation_prompt=True), add_special_tokens=False
        )
        asking = [Message("user", "red")]
        assert list(beside.encode_chat(asking)) == wanted.ids != list(served.encode_chat(asking))
        assert beside.token_facts()["chat_template"] == plain.source != served.token_facts()["chat_template"]
        answer = beside.complete(ChatRequest(asking, temperature=0, max_tokens=3))
        assert (answer.usage.input or 0) + (answer.usage.cache_read or 0) == len(wanted.ids)
        served.close()  # type: ignore[attr-defined]
        assert main([*merge, "--workspace", str(home)]) == 0
        whole = ChatTemplate.load(ws.artifacts.get("tuned-whole").path)
        assert whole is not None and whole.source == plain.source


def test_energy_is_that_of_all_processes() -> None:
    class Two:
        def total(self, *values: float) -> tuple[float, ...]:
            return tuple(2 * value for value in values)

    watch = Stopwatch(TuneRunSettings())
    sum(range(2_000_000))
    alone, both = watch.effort(0, ALONE), watch.effort(0, Two())  # type: ignore[arg-type]
    assert both.core_seconds > 1.5 * alone.core_seconds > 0
