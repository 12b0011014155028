"""Sums of adapters against PEFT's, and what is made of stored ones, by the command line too."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from windlass.build.adapt.merging.methods import chance, dropped
from windlass.build.adapt.peft.artifacts import combine_stored, merge_stored, stored
from windlass.build.adapt.peft.attaching import adapter_of, attach, attach_adapter, merge
from windlass.build.adapt.peft.beginning import read_for
from windlass.build.adapt.peft.composing import HOWS, How, combined
from windlass.build.adapt.sections import AdapterSettings
from windlass.build.transformer.adapters.parts import Adapter, LowRank
from windlass.build.transformer.adapters.writing import write_adapter
from windlass.build.transformer.config import TransformerConfig
from windlass.build.transformer.decoder import Decoder
from windlass.build.transformer.hf import load_links, load_model, save_model, weights_digest
from windlass.build.transformer.init import initialise
from windlass.cli.adapters import _HOWS
from windlass.cli.main import main
from windlass.core.artifacts import Artifact
from windlass.core.errors import InputError, Unsupported
from windlass.core.workspace import Workspace

SHAPE = {
    "vocab_size": 61,
    "hidden": 32,
    "layers": 2,
    "heads": 4,
    "kv_heads": 2,
    "head_dim": 8,
    "ffn": 40,
    "context": 64,
}
TOKENS = torch.arange(2, 40)[None]


def random_adapter(base: Path, kind: str, seed: int, **settings: Any) -> Adapter:
    model = load_model(base)
    attach(model, AdapterSettings(kind, **settings), seed=seed)
    torch.manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.3 * torch.randn(parameter.shape))
    return adapter_of(model)


def said(base: Path, adapter: Adapter) -> torch.Tensor:
    model = load_model(base)
    attach_adapter(model, adapter)
    with torch.inference_mode():
        return model(TOKENS)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("composing") / "base"
    model = Decoder(TransformerConfig(**SHAPE))
    initialise(model, 0)
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape))
    save_model(model, folder)
    return folder


def saved(base: Path, folder: Path, adapter: Adapter) -> Path:
    state = load_model(base).state_dict()
    digest = weights_digest(base)
    write_adapter(folder, adapter, load_links(base), state, base="base", digest=digest, task="CAUSAL_LM")
    return folder


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning")
@pytest.mark.parametrize(
    ("how", "settings"),
    [
        ("cat", [{"rank": 2, "alpha": 3}, {"rank": 4, "alpha": 7, "targets": ("query", "down")}]),
        ("svd", [{"rank": 2, "alpha": 3}, {"rank": 3, "alpha": 7}]),
        ("linear", [{"rank": 3, "alpha": 3}, {"rank": 3, "alpha": 7}]),
        ("ia3", [{}, {}]),
    ],
)
@pytest.mark.parametrize("weights", [(0.5, 0.5), (1.2, -0.4)])
def test_sums_are_those_of_peft(base, tmp_path, how: str, settings, weights) -> None:
    peft = pytest.importorskip("peft")
    kind = "ia3" if how == "ia3" else "lora"
    ones = [random_adapter(base, kind, seed, **own) for seed, own in enumerate(settings)]
    found = combined(list(zip(ones, weights)), "cat" if how == "ia3" else how, 3 if how == "svd" else None)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(base)
    wrapped = peft.PeftModel.from_pretrained(theirs, saved(base, tmp_path / "0", ones[0]), adapter_name="0")
    wrapped.load_adapter(saved(base, tmp_path / "1", ones[1]), adapter_name="1")
    if kind == "ia3":
        wrapped.add_weighted_adapter(["0", "1"], list(weights), "sum")
    else:
        rank = {"svd_rank": 3} if how == "svd" else {}
        wrapped.add_weighted_adapter(["0", "1"], list(weights), "sum", combination_type=how, **rank)
    wrapped.set_adapter("sum")
    with torch.inference_mode():
        assert torch.allclose(said(base, found.adapter), wrapped.eval()(TOKENS).logits, atol=5e-4)


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning")
@pytest.mark.parametrize("weights", [(0.5, 0.5), (1.2, -0.4)])
@pytest.mark.parametrize("how", [way for way in HOWS if way not in ("cat", "linear", "svd")])
def test_what_is_thinned_is_that_of_peft(base, tmp_path, monkeypatch, how: How, weights) -> None:
    peft = pytest.importorskip("peft")
    merging = pytest.importorskip("peft.utils.merge_utils")
    ones = [random_adapter(base, "lora", seed, rank=3, alpha=4 + seed) for seed in range(2)]
    found = combined(list(zip(ones, weights)), how, 3 if how.endswith("svd") else None, 0.6, seed=7)
    masks = [  # the same chance for both: module by module, A before B, adapter by adapter
        (name + side, number)
        for name in _in_their_order(ones[0])
        for side in ([""] if how.endswith("svd") else [" A", " B"])
        for number in range(2)
    ]

    def as_here(tensor: torch.Tensor, density: float, rescale: bool) -> torch.Tensor:
        name, number = masks.pop(0)
        return dropped(tensor, density, chance(7, name, number))

    monkeypatch.setattr(merging, "random_pruning", as_here)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(base)
    wrapped = peft.PeftModel.from_pretrained(theirs, saved(base, tmp_path / "0", ones[0]), adapter_name="0")
    wrapped.load_adapter(saved(base, tmp_path / "1", ones[1]), adapter_name="1")
    rank = {"svd_rank": 3} if how.endswith("svd") else {}
    wrapped.add_weighted_adapter(["0", "1"], list(weights), "sum", combination_type=how, density=0.6, **rank)
    wrapped.set_adapter("sum")
    assert not masks or not how.startswith("dare")
    with torch.inference_mode():
        assert torch.allclose(said(base, found.adapter), wrapped.eval()(TOKENS).logits, atol=5e-4)


def _in_their_order(adapter: Adapter) -> list[str]:
    """Our maps in the order in which transformers' model has its modules."""
    places = [
        "attention.query",
        "attention.key",
        "attention.value",
        "attention.output",
        "mlp.gate",
        "mlp.up",
        "mlp.down",
    ]
    return [f"blocks.{layer}.{place}" for layer in range(SHAPE["layers"]) for place in places]


def test_thinning_is_of_no_use_to_some_and_needed_by_others(base) -> None:
    lora, other = (random_adapter(base, "lora", seed, rank=2) for seed in (0, 1))
    pair = [(lora, 0.5), (other, 0.5)]
    ia3 = [(random_adapter(base, "ia3", seed), 0.5) for seed in (0, 1)]
    for how, density in (("cat", 0.5), ("ties", None), ("dare_ties_svd", 0.0), ("ties", 1.5)):
        with pytest.raises(InputError, match=f"With '{how}'"):
            combined(pair, how, density=density)
    with pytest.raises(Unsupported, match="rescale, which 'ties' cannot combine"):
        combined(ia3, "ties", density=0.5)
    same = combined([(lora, 0.5), (lora, 0.5)], "ties_svd", density=1.0)
    assert abs(same.lost - 0.5) < 1e-4  # PEFT's mean is of weighted tensors: weights of 1 give the adapter back
    assert combined([(lora, 1.0), (lora, 1.0)], "ties_svd", density=1.0).adapter.parts.keys() == lora.parts.keys()


def test_cat_is_the_sum_and_the_others_say_what_they_lose(base) -> None:
    ones = [random_adapter(base, "lora", 0, rank=2), random_adapter(base, "rslora", 1, rank=3, alpha=4)]
    weighed = list(zip(ones, (0.7, 0.3)))
    exact = combined(weighed)
    for name, part in exact.adapter.parts.items():
        assert isinstance(part, LowRank)
        parts = [one.parts[name] for one in ones]
        wanted = sum(weight * p.scale * p.up_NR @ p.down_RK for p, weight in zip(parts, (0.7, 0.3)))
        assert torch.allclose(part.scale * part.up_NR @ part.down_RK, wanted, atol=1e-5)
    assert exact.lost == 0.0
    assert combined(weighed, "svd", 5).lost < 1e-5  # all ranks there are
    lost = [combined(weighed, "svd", rank).lost for rank in (4, 2, 1)]
    assert 0.01 < lost[0] < lost[1] < lost[2] < 1
    same = combined([(ones[0], 0.5), (ones[0], 0.5)], "linear")
    assert abs(same.lost - 1) < 1e-3  # as much too much as there should be


def test_what_is_no_sum_is_refused(base) -> None:
    lora, other = (random_adapter(base, "lora", seed, rank=2 + seed) for seed in (0, 1))
    dora, ia3 = random_adapter(base, "dora", 0, rank=2), random_adapter(base, "ia3", 0)
    prompt = random_adapter(base, "prompt", 0, virtual_tokens=3)
    for pair, how, error, message in (
        ([(lora, 1.0)], "cat", InputError, "nothing to combine"),
        ([(lora, 1.0), (other, 1.0)], "linear", InputError, r"the ranks \[2, 3\]"),
        ([(lora, 1.0), (other, 0.0)], "cat", InputError, "has the weight 0"),
        ([(lora, 1.0), (dora, 1.0)], "cat", Unsupported, "DoRA"),
        ([(lora, 1.0), (ia3, 1.0)], "cat", Unsupported, "one adapter adds and another one rescales"),
        ([(lora, 1.0), (prompt, 1.0)], "cat", Unsupported, "positions before every text"),
    ):
        with pytest.raises(error, match=message):
            combined(pair, how)
    with pytest.raises(InputError, match="rank 3 was asked for with 'cat'"):
        combined([(lora, 1.0), (other, 1.0)], "cat", 3)


@pytest.fixture
def home(base, tmp_path) -> tuple[Path, Artifact]:
    """A workspace with the base, two adapters of it, and one of other weights."""
    with Workspace(tmp_path) as ws:
        with ws.artifacts.build("model", "base") as draft:
            for file in base.iterdir():
                (draft.path / file.name).write_bytes(file.read_bytes())
            (draft.path / "tokenizer_config.json").write_text("{}")
        for seed, name in enumerate(("french", "legal")):
            with ws.artifacts.build("adapter", name) as adapter:
                adapter.add_parent("base", draft.done)
                saved(base, adapter.path, random_adapter(base, "lora", seed, rank=2))
    return tmp_path, draft.done


def test_stored_adapters_are_merged_and_combined(base, home, capsys) -> None:
    folder, parent = home
    options = ["--workspace", str(folder)]
    assert main(["adapters", "combine", "french=0.5", "legal=0.5", "--name", "both", *options]) == 0
    assert "0.0% off the exact sum" in capsys.readouterr().out
    assert main(["adapters", "merge", "both", "--name", "whole", *options]) == 0
    assert "within" in capsys.readouterr().out
    assert main(["adapters", "show", "both", *options]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["kind"] == "lora" and shown["ranks"] == [4] and shown["base"] == parent.ref
    with Workspace(folder) as ws:
        both, whole = ws.artifacts.get("both"), ws.artifacts.get("whole")
        assert set(_HOWS) == set(HOWS)
        assert both.parent("base") == whole.parent("base") == parent.digest
        assert [role for role, _ in both.record.parents].count("adapter") == 2
        assert both.card["weights"] == {"french": 0.5, "legal": 0.5}
        assert whole.card["merge_error"] < 1e-4 and "tokenizer_config.json" in whole.record.files
        adapter = read_for(load_model(base), both.path, load_links(base))
        with torch.inference_mode():
            assert torch.allclose(load_model(whole.path)(TOKENS), said(base, adapter), atol=1e-4)


@pytest.mark.parametrize("kind", ["lora", "rslora", "dora", "ia3"])
def test_merging_says_its_error(base, home, kind: str) -> None:
    folder, parent = home
    with Workspace(folder) as ws:
        with ws.artifacts.build("adapter", "one") as draft:
            draft.add_parent("base", parent)
            saved(base, draft.path, random_adapter(base, kind, 3, rank=3))
        assert merge_stored(ws, stored(ws, "one"), "whole").card["merge_error"] < 1e-4


@pytest.mark.parametrize("harm", [1e-2, float("nan")])
def test_a_harmful_merge_is_refused_and_nothing_is_stored(base, home, harm: float, monkeypatch) -> None:
    """As when the sum of base and adapter is rounded to few bits once more, which other libraries do with a warning."""
    folder, parent = home

    def harmful(model: torch.nn.Module) -> None:
        merge(model)
        with torch.no_grad():
            for weight in model.parameters():
                weight += harm * torch.sin(torch.arange(weight.numel(), dtype=torch.float32)).view_as(weight)

    monkeypatch.setattr("windlass.build.adapt.peft.artifacts.merge", harmful)
    with Workspace(folder) as ws:
        with ws.artifacts.build("adapter", "harmed") as draft:
            draft.add_parent("base", parent)
            saved(base, draft.path, random_adapter(base, "lora", 3, rank=3))
        with pytest.raises(InputError, match=r"outputs are .* away from those of") as refused:
            merge_stored(ws, stored(ws, "harmed"), "harmed-whole")
        assert "Keep the two apart" in refused.value.hint and ws.artifacts.find("harmed-whole") is None


def test_adapters_of_other_bases_are_refused(base, home, tmp_path) -> None:
    folder, _ = home
    other = Decoder(TransformerConfig(**SHAPE))
    initialise(other, 1)
    save_model(other, tmp_path / "other")
    loose = saved(tmp_path / "other", tmp_path / "loose", random_adapter(tmp_path / "other", "lora", 0, rank=2))
    with Workspace(folder) as ws:
        with pytest.raises(InputError, match="Nothing says on which model"):
            stored(ws, str(loose))
        with pytest.raises(InputError, match="Combine adapters of one base"):
            ones = [(stored(ws, "french"), 0.5), (stored(ws, str(loose), str(tmp_path / "other")), 0.5)]
            combine_stored(ws, ones, "both")
        with pytest.raises(InputError, match="trained on a base whose weights have the digest"):
            merge_stored(ws, stored(ws, str(loose), "base"), "whole")
        with pytest.raises(InputError, match="of kind 'model', not 'adapter'"):
            stored(ws, "base")


def test_merge_of_attached_is_what_the_model_said(base) -> None:
    adapter = random_adapter(base, "dora", 0, rank=2, targets=("*.attention.*",))
    model = load_model(base)
    attach_adapter(model, adapter)
    merge(model)
    with torch.inference_mode():
        assert torch.allclose(model(TOKENS), said(base, adapter), atol=1e-4)
