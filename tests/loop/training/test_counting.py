"""The baselines of encoders and encoder-decoders: asked for the very tokens that the model was asked for."""

from __future__ import annotations

import numpy as np
import pytest

from windlass.build.corpus import CorpusSettings, build_corpus
from windlass.build.tokenizer import load_specials, train_tokenizer
from windlass.build.training.data.batches import IGNORE
from windlass.build.training.job import open_inputs, read_texts
from windlass.build.training.pretrain import pretrain
from windlass.build.training.recipe import read_recipe
from windlass.core.readers import Folder
from windlass.core.workspace import Workspace
from windlass.evaluate.neighbours import HIDDEN
from windlass.loop.training.baselines import comparison
from windlass.loop.training.counting import _asked

TINY = {"model.depth": 1, "model.context": 32, "data.batch": 4, "run.compile": "no", "schedule.steps": 2}
TINY |= {"schedule.minutes": None, "run.evaluate_seconds": None}


@pytest.fixture(scope="module")
def ws(tmp_path_factory):
    home = tmp_path_factory.mktemp("counting")
    texts = home / "texts"
    texts.mkdir()
    for i in range(20):
        # Every word is decided by those beside it.
        (texts / f"{i}.txt").write_text(f"part {i}: " + "the wind turns the heavy lass and " * 40, encoding="utf-8")
    with Workspace(home) as ws:
        corpus = build_corpus(ws, Folder(texts), CorpusSettings(heldout=0.2, near=1.0))
        train_tokenizer(ws, corpus, 360, sentinels=16, allow_smaller=True)
        yield ws


def trained(ws: Workspace, recipe: str):
    settings = read_recipe(recipe, TINY)
    corpus, tokenizer = ws.artifacts.get("corpus"), ws.artifacts.get("tokenizer")
    return settings, pretrain(ws, corpus, tokenizer, settings, say=lambda line: None)


def test_an_encoder_stands_beside_counts_that_know_this_text(ws):
    settings, model = trained(ws, "encoder")
    lines = comparison(ws, model).splitlines()
    assert "nats a target" in lines[0]
    ours, counts = (next(line for line in lines if name in line) for name in (model.ref, "counts of both neighbours"))
    assert f"{model.card['heldout_accuracy']:.1%}" in ours
    share = float(next(word for word in counts.split() if word.endswith("%")).rstrip("%"))
    assert share > 60, "neighbours decide nearly every word of this text"

    inputs = open_inputs(ws, ws.artifacts.get("corpus"), ws.artifacts.get("tokenizer"), settings)
    unseen = read_texts(inputs).unseen
    mask = load_specials(ws.artifacts.get("tokenizer")).need("mask")
    left, hidden, right = _asked(unseen, 0, mask)
    batch = unseen.batch([(0, 0)])
    asked, inputs_T = batch.targets_BT[0].numpy(), batch.inputs_BT[0].numpy()
    places = np.flatnonzero(asked != IGNORE)
    assert hidden.tolist() == asked[places].tolist()
    for place, before, after in zip(places.tolist(), left.tolist(), right.tolist(), strict=True):
        expected = [inputs_T[p] if 0 <= p < len(inputs_T) else mask for p in (place - 1, place + 1)]
        assert [before, after] == [HIDDEN if token == mask else token for token in expected]


def test_an_encoder_decoder_stands_beside_targets_without_a_source(ws):
    _, model = trained(ws, "encoder-decoder")
    lines = comparison(ws, model).splitlines()
    nats = {name: float(line[line.index("  ") :].split()[0]) for line in lines[2:] for name in [line.split("  ")[0]]}
    baseline = next(value for name, value in nats.items() if "no source" in name)
    assert 0 < baseline < nats[model.ref], "two steps teach less than counting"
