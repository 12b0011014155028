"""From `tune` to an answer: what was tuned is served over HTTP and asked by retrieval, as a model and as an adapter."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx2 as httpx
import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
pytest.importorskip("uvicorn")
from encoder_world import save_encoder  # noqa: E402

from windlass.apply.assistant import NOT_FOUND, Assistant, AssistantSettings  # noqa: E402
from windlass.apply.providers.reranking import reranker  # noqa: E402
from windlass.apply.rag.answers.abstention import AbstentionRule  # noqa: E402
from windlass.apply.rag.answers.reading import ReadingRule  # noqa: E402
from windlass.apply.rag.embedding.hashing import HashingEmbedder  # noqa: E402
from windlass.apply.rag.index import HybridIndex, build_index  # noqa: E402
from windlass.build.adapt.peft.artifacts import merge_stored, stored  # noqa: E402
from windlass.build.adapt.sections import (  # noqa: E402
    AdapterSettings,
    BaseSettings,
    TuneDataSettings,
    TuneObjectiveSettings,
    TuneOptimizerSettings,
    TuneRunSettings,
    TuneScheduleSettings,
)
from windlass.build.adapt.settings import TuneSettings  # noqa: E402
from windlass.build.adapt.tuning import tune  # noqa: E402
from windlass.core.artifacts import Artifact  # noqa: E402
from windlass.core.documents import Document, write_documents  # noqa: E402
from windlass.core.errors import InputError, NotFound, Unsupported  # noqa: E402
from windlass.core.values import ChatRequest, Message  # noqa: E402
from windlass.core.workspace import Workspace  # noqa: E402
from windlass.loop.assistants.assemble import load_assistant, load_reader, load_reranker  # noqa: E402
from windlass.loop.assistants.variant import VariantSpec, make_variant, reader_of  # noqa: E402
from windlass.loop.lineup import Lineup, load_lineup  # noqa: E402
from windlass.serve.app import create_app  # noqa: E402
from windlass.serve.run import ServerThread  # noqa: E402

LORA = AdapterSettings("lora", rank=4)
TEXTS = ["the old pump moves water", "cat sat on a mat", "violin music"]


def rows_for(kind: str, count: int = 80) -> list[dict[str, Any]]:
    draw = random.Random(0)
    rows: list[dict[str, Any]] = []
    for number in range(count):
        filler = " ".join(draw.choices(("the", "old", "on", "a", "in"), k=draw.randint(2, 6)))
        word, other = draw.sample(("cat", "pump", "violin", "bread"), 2)
        match kind:
            case "classify":
                rows.append({"text": f"{filler} {word}", "label": word})
            case "rank":
                rows.append({"query": word, "positive": f"{filler} {word}", "negatives": [f"{filler} {other}"]})
            case "embed":
                rows.append({"query": f"{word} {number}", "positive": f"{filler} {word}"})
            case "extract":
                there = number % 4 > 0
                context = f"{filler} {word} moves water in {filler}" if there else f"{filler} {word} sat on {filler}"
                answers = [{"text": "water", "answer_start": context.index("water")}] if there else []
                rows.append({"question": f"{word} {number}", "context": context, "answers": answers})
    return rows


def tuned(ws: Workspace, base: Path, kind: str, name: str, adapter: AdapterSettings, steps: int = 20) -> Artifact:
    path = ws.root / f"{kind}.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows_for(kind)), encoding="utf-8")
    settings = TuneSettings(
        model=BaseSettings(str(base)),
        adapter=adapter,
        data=TuneDataSettings(str(path), batch=16, heldout=0.2),
        objective=TuneObjectiveSettings(kind),  # type: ignore[arg-type]
        optimizer=TuneOptimizerSettings(matrix_rate=5e-3),
        schedule=TuneScheduleSettings(steps=steps),
        run=TuneRunSettings(name=name, precision="fp32", checkpoint_steps=1000),
    )
    return tune(ws, settings, say=lambda line: None)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bases") / "base"
    save_encoder(folder, "Bert", "Model", initializer_range=0.1)
    return folder


@pytest.fixture(scope="module")
def ws(tmp_path_factory: pytest.TempPathFactory, base: Path) -> Iterator[Workspace]:
    with Workspace(tmp_path_factory.mktemp("home")) as ws:
        for kind in ("classify", "rank", "embed"):
            tuned(ws, base, kind, f"{kind}-whole", AdapterSettings("none"))
            tuned(ws, base, kind, f"{kind}-beside", LORA)
        yield ws


def served(lineup: Lineup) -> ServerThread:
    return ServerThread(
        create_app(lineup.models, lineup.embedders, rerankers=lineup.rerankers, classifiers=lineup.classifiers)
    )


def answers(http: httpx.Client, kind: str, model: str) -> np.ndarray:
    """Probabilities (texts, labels), scores (texts, 1), or vectors (texts, C)."""
    match kind:
        case "classify":
            got = http.post("/v1/classify", json={"model": model, "input": TEXTS}).raise_for_status().json()
            return np.array([one["probs"] for one in got["data"]])
        case "rank":
            body = {"model": model, "query": "pump", "documents": TEXTS}
            got = http.post("/v1/rerank", json=body).raise_for_status().json()
            return np.array([[one["relevance_score"]] for one in sorted(got["results"], key=lambda r: r["index"])])
        case _:
            got = http.post("/v1/embeddings", json={"model": model, "input": TEXTS}).raise_for_status().json()
            return np.array([one["embedding"] for one in got["data"]])


@torch.inference_mode()
def expected(kind: str, folder: Path) -> np.ndarray:
    """What transformers makes of a model's folder."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    if kind == "embed":
        model = transformers.AutoModel.from_pretrained(folder, add_pooling_layer=False).eval()
        means = [model(**tokenizer(text, return_tensors="pt")).last_hidden_state[0].mean(0) for text in TEXTS]
        return torch.nn.functional.normalize(torch.stack(means), dim=-1).numpy()
    model = transformers.AutoModelForSequenceClassification.from_pretrained(folder).eval()
    pairs = [(text,) if kind == "classify" else ("pump", text) for text in TEXTS]
    read = [tokenizer(*pair, return_tensors="pt", return_token_type_ids=True) for pair in pairs]
    logits = torch.stack([model(**one).logits[0] for one in read])
    return (logits.softmax(-1) if kind == "classify" else logits.sigmoid()).numpy()


@pytest.mark.parametrize("kind", ["classify", "rank", "embed"])
def test_a_model_and_an_adapter_answer_over_http_as_they_lie(ws: Workspace, tmp_path: Path, kind: str) -> None:
    whole, beside = ws.artifacts.get(f"{kind}-whole"), ws.artifacts.get(f"{kind}-beside")
    assert (whole.kind, beside.kind) == ("model", "adapter")
    merged = merge_stored(ws, stored(ws, beside.ref, str(base_of(beside))), f"{kind}-merged")
    folder = tmp_path / "copied"
    shutil.copytree(beside.path, folder)
    lineup = load_lineup(ws, [whole.ref, beside.ref, str(folder)])
    with served(lineup) as server, httpx.Client(base_url=server.url, timeout=60) as http:
        found = {name: answers(http, kind, name) for name in (f"{kind}-whole", f"{kind}-beside", "copied")}
    assert np.allclose(found[f"{kind}-whole"], expected(kind, whole.path), atol=1e-4)
    assert np.allclose(found[f"{kind}-beside"], expected(kind, merged.path), atol=1e-4)
    assert np.allclose(found["copied"], found[f"{kind}-beside"], atol=1e-6)
    assert np.abs(found[f"{kind}-beside"] - found[f"{kind}-whole"]).max() > 1e-3
    assert np.ptp(found["copied"]) > 1e-3


def base_of(adapter: Artifact) -> Path:
    return Path(json.loads((adapter.path / "adapter_config.json").read_text())["base_model_name_or_path"])


def test_an_adapter_whose_base_is_gone_is_refused(ws: Workspace, tmp_path: Path) -> None:
    shutil.copytree(ws.artifacts.get("classify-beside").path, tmp_path / "moved")
    path = tmp_path / "moved/adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"base_model_name_or_path": "/nowhere"}))
    with pytest.raises(InputError, match=r"Nothing says on which model .*moved was trained"):
        load_lineup(ws, [str(tmp_path / "moved")])
    other = tmp_path / "other"
    save_encoder(other, "Bert", "Model", initializer_range=0.3)
    path.write_text(json.dumps(json.loads(path.read_text()) | {"base_model_name_or_path": str(other)}))
    with pytest.raises(InputError, match="was trained on a base whose weights have the digest"):
        load_lineup(ws, [str(tmp_path / "moved")])


@pytest.mark.parametrize("adapter", [AdapterSettings("none"), pytest.param(LORA, marks=pytest.mark.slow)])
def test_what_was_tuned_reads_an_answer_out_of_documents(base: Path, tmp_path: Path, adapter: AdapterSettings) -> None:
    with Workspace(tmp_path) as ws:
        model = tuned(ws, base, "extract", "reader", adapter, steps=150)
        threshold = json.loads((model.path / "config.json").read_text())["no_answer_threshold"]
        assert threshold == pytest.approx(model.card["heldout_no_answer_threshold"])
        documents = [
            Document("one", "one.txt", "", "the old pump moves water in a violin", metadata={}),
            Document("two", "two.txt", "", "a cat sat on the old mat", metadata={}),
        ]
        with ws.artifacts.build("corpus", "corpus") as draft:
            write_documents(draft.path / "documents.jsonl", documents)
        embedder = HashingEmbedder()
        index = HybridIndex.open(build_index(ws, draft.done, embedder), embedder)
        beyond = ReadingRule(-threshold, (1.0, 0.0, 0.0, 0.0), 0.5)  # margins beyond the reader's own threshold
        always = AssistantSettings(abstention=AbstentionRule(threshold=0.0), reading=beyond)
        reader = load_reader(ws, "reader")
        said = Assistant(index, always, reader=reader).complete(ChatRequest([Message("user", "pump 7")]))
        (citation,) = said.citations
        text = documents[0].text
        assert citation.quote == "water" == text[citation.start : citation.end] and citation.document == "one"
        nothing = Assistant(index, always, reader=reader).complete(
            ChatRequest([Message("user", "cat 7")], extra={"where": {"document": "two"}})
        )
        assert nothing.abstained and nothing.message.text == NOT_FOUND
        with pytest.raises(Unsupported, match="for which there is no endpoint"):
            load_lineup(ws, ["reader"])
        # the workspace's model of that name answers without being named; a variant may hold its own
        variant = make_variant(ws, VariantSpec(settings=always), ws.artifacts.get("index"), name="plain")
        assistant = load_assistant(ws, variant, embedder=embedder)
        assert assistant.reader is not None and assistant.reader.name == "reader" and assistant.model is None
        assert load_assistant(ws, variant, embedder=embedder, writes=False).reader is None
        pinned = make_variant(ws, VariantSpec(), ws.artifacts.get("index"), reader=model, name="pinned")
        assert reader_of(ws, pinned) is not None and reader_of(ws, variant) is None
        tuned(ws, base, "classify", "reader", AdapterSettings("none"), steps=1)  # one of that name that reads nothing
        assert load_assistant(ws, variant, embedder=embedder).reader is None
        assert load_assistant(ws, pinned, embedder=embedder).reader is not None


@pytest.mark.parametrize("name", ["rank-whole", pytest.param("rank-beside", marks=pytest.mark.slow)])
def test_what_was_tuned_reranks_here_as_behind_an_endpoint(ws: Workspace, name: str) -> None:
    here = load_reranker(ws, name)
    scores = list(here.rank("pump", TEXTS).scores)
    assert here.name == name and len(set(scores)) == len(TEXTS)
    with (
        served(load_lineup(ws, [name])) as server,
        closing(reranker(f"windlass:{name}", base_url=f"{server.url}/v1")) as there,
    ):
        assert there.rank("pump", TEXTS).scores == pytest.approx(scores, abs=1e-5)
        assert there.rank("pump", TEXTS).tokens == here.rank("pump", TEXTS).tokens


def test_an_embedder_reranks_by_its_words_and_others_do_not(ws: Workspace, tmp_path: Path) -> None:
    assert load_reranker(ws, "embed-whole").name == "embed-whole (late interaction)"
    with pytest.raises(InputError, match="classify-whole does not say how well a text answers"):
        load_reranker(ws, "classify-whole")
    with pytest.raises(NotFound):
        load_reranker(ws, "nobody")
    with pytest.raises(InputError, match="There is no folder"):
        load_reranker(None, str(tmp_path / "nowhere"))


def test_a_workspace_serves_whatever_was_tuned_in_it(base: Path, tmp_path: Path) -> None:
    with Workspace(tmp_path) as ws:
        tuned(ws, base, "classify", "sorter", AdapterSettings("none"), steps=1)
        tuned(ws, base, "extract", "reader", AdapterSettings("none"), steps=1)
        lineup = load_lineup(ws, [])
        assert list(lineup.classifiers) == ["sorter"] and not lineup.models
        assert any("Without reader@1" in line and "finds answers in texts" in line for line in lineup.lacks)
        with pytest.raises(InputError, match="sorter does not say where in a text an answer stands"):
            load_reader(ws, "sorter")
        with pytest.raises(NotFound):
            load_reader(ws, "nobody")
