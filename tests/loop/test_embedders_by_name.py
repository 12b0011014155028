"""An index made with any embedder that can be named, and asked later by that name alone."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")
pytest.importorskip("uvicorn")
from encoder_world import save_encoder
from serving_fakes import Letters

from windlass.core.errors import InputError
from windlass.core.workspace import Workspace
from windlass.loop.embedders import embedder_named, lasting_name, usual
from windlass.loop.ingesting import Wishes, opened_for_ingest
from windlass.loop.living import open_living, settings_of
from windlass.serve.app import create_app
from windlass.serve.run import ServerThread


@pytest.fixture
def ws(tmp_path: Path) -> Iterator[Workspace]:
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "pump.md").write_text("# Pump\n\nthe old pump moves water\n")
    with Workspace(tmp_path) as workspace:
        yield workspace


def ingested(ws: Workspace, embedder: str) -> tuple[str, int]:
    """How the embedder is remembered, and its vectors' dimension, once the index was opened by that name alone."""
    with opened_for_ingest(ws, "docs", Wishes([ws.home / "docs"], embedder=embedder)) as into:
        assert into.ingest().passages == 1
    settings = settings_of(ws, "docs")
    assert settings is not None
    index = open_living(ws, "docs")
    assert index.search("the pump", 1)[0].citation.document == "docs/pump.md"
    dimension = index.embedder.dimension
    index.close()
    return settings.embedder, dimension


def test_a_folder_is_remembered_by_its_whole_path(ws: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    save_encoder(ws.home / "encoder", "Bert", "Model")
    monkeypatch.chdir(ws.home)
    assert ingested(ws, "encoder") == (str(ws.home / "encoder"), 32)


def test_a_model_of_the_workspace_is_remembered_by_its_digest(ws: Workspace) -> None:
    save_encoder(ws.home / "encoder", "Bert", "Model")
    with ws.artifacts.build("model", "mine") as draft:
        shutil.copytree(ws.home / "encoder", draft.path, dirs_exist_ok=True)
    assert ingested(ws, "mine") == (draft.done.digest, 32)
    assert lasting_name(ws, "hashing") == "hashing" and lasting_name(ws, "openai:e") == "openai:e"


def test_an_endpoint_that_speaks_the_openai_api(ws: Workspace) -> None:
    letters = Letters()
    with ServerThread(create_app({}, {"letters": letters})) as server:
        name = f"{server.url}/v1#letters"
        assert ingested(ws, name) == (name, 4)


def test_other_encoders_are_told_apart(ws: Workspace) -> None:
    save_encoder(ws.home / "judge", "Bert", "ForSequenceClassification")
    with pytest.raises(InputError, match="it sorts texts or ranks them"):
        embedder_named(ws, str(ws.home / "judge"))


@pytest.mark.parametrize(("native", "name"), [(True, "minilm:bfloat16"), (False, "minilm")])
def test_a_new_index_is_embedded_as_the_processor_does_it_best(
    ws: Workspace, monkeypatch: pytest.MonkeyPatch, native: bool, name: str
) -> None:
    monkeypatch.setattr("windlass.serve.encoders.embedder.multiplies_bfloat16", lambda: native)
    assert usual() == name
    for here in (native, not native):  # and is not embedded anew on another machine
        monkeypatch.setattr("windlass.serve.encoders.embedder.multiplies_bfloat16", lambda here=here: here)
        with opened_for_ingest(ws, "docs", Wishes([ws.home / "docs"])) as into:
            into.ingest()
        settings = settings_of(ws, "docs")
        assert settings is not None and settings.embedder == name
    index = open_living(ws, "docs")
    assert index.embedder.digest == embedder_named(None, name).digest
    assert index.search("water pump", 1)[0].citation.document == "docs/pump.md"
    index.close()
