"""Adapters against PEFT: same logits as its wrapped and its merged model, alone and in company."""

from __future__ import annotations

import gc
import json
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from windlass.build.transformer.decoder import Decoder
from windlass.build.transformer.hf import load_decoder
from windlass.build.transformer.linear import fused
from windlass.build.transformer.ragged import Parts
from windlass.core.errors import InputError, NotFound, Unsupported
from windlass.serve.engine.adapters.lora import Adapters
from windlass.serve.engine.adapters.lora_files import CONFIG, WEIGHTS, LoRA, read_lora
from windlass.serve.engine.arithmetic.linears import POLICIES, prepare
from windlass.serve.engine.engine import Engine
from windlass.serve.engine.request import Generation, Running
from windlass.serve.engine.sampling.settings import Sampling

peft = pytest.importorskip("peft")
pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning")  # PEFT's, of transformers

SHAPE = {
    "vocab_size": 61, "hidden_size": 32, "intermediate_size": 40, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 64, "initializer_range": 0.2, "bos_token_id": None,
    "eos_token_id": None, "pad_token_id": None,
}  # fmt: skip
GPT2 = {
    "vocab_size": 61, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64, "initializer_range": 0.2,
    "bos_token_id": None, "eos_token_id": None,
}  # fmt: skip
ALL = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
CASES: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "llama": ("Llama", SHAPE, {"target_modules": ALL, "r": 4}),
    "rank-stabilised": ("Llama", SHAPE, {"target_modules": ["q_proj", "v_proj"], "use_rslora": True, "r": 9}),
    "patterns": (
        "Llama", SHAPE,
        {"target_modules": ALL, "r": 3, "rank_pattern": {"down_proj": 5, "layers.1.self_attn.q_proj": 1},
         "alpha_pattern": {r".*\.0\..*": 11}},
    ),
    "one layer by an expression": ("Qwen2", SHAPE, {"target_modules": r".*\.1\.(self_attn\.q_proj|mlp\.up_proj)"}),
    "some layers": ("Qwen3", SHAPE | {"head_dim": 8}, {"target_modules": ["o_proj"], "layers_to_transform": [1]}),
    "all linear": ("Gemma2", SHAPE | {"head_dim": 8}, {"target_modules": "all-linear"}),
    "lengths of rows": ("Llama", SHAPE, {"target_modules": ALL, "use_dora": True}),
    "lengths of rows of transposed and fused maps": (
        "GPT2", GPT2, {"target_modules": ["c_attn", "c_proj"], "fan_in_fan_out": True, "use_dora": True},
    ),
    "fused maps": ("Phi3", SHAPE, {"target_modules": ["qkv_proj", "gate_up_proj", "down_proj"]}),
    "transposed maps": ("GPT2", GPT2, {"target_modules": ["c_attn", "c_fc", "c_proj"], "fan_in_fan_out": True}),
}  # fmt: skip
TOKENS = torch.arange(2, 44, 2)[None] % 61


def base_of(folder: Path, family: str, shape: dict[str, Any]) -> Any:
    torch.manual_seed(0)
    head = "GPT2LMHeadModel" if family == "GPT2" else f"{family}ForCausalLM"
    model = getattr(transformers, head)(getattr(transformers, f"{family}Config")(**shape)).eval()
    model.save_pretrained(folder)
    return model


def adapted(base: Any, folder: Path, seed: int, **settings: Any) -> Any:
    """A random adapter of PEFT's, saved to `folder`."""
    torch.manual_seed(seed)
    model = peft.get_peft_model(base, peft.LoraConfig(**{"r": 4, "lora_alpha": 6, **settings})).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_" in name:
                parameter.normal_(0, 0.3)
    model.save_pretrained(folder)
    return model


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Path], dict[str, torch.Tensor]]:
    """A Llama, three adapters of different ranks and places, and the logits PEFT says."""
    root = tmp_path_factory.mktemp("lora")
    base_of(root / "base", "Llama", SHAPE)
    folders, logits = {}, {}
    for seed, (name, settings) in enumerate(
        {
            "all": {"target_modules": ALL, "r": 4},
            "attention": {"target_modules": ["q_proj", "v_proj"], "r": 7, "lora_alpha": 30},
            "mlp": {"target_modules": ["down_proj", "k_proj"], "r": 2},
        }.items()
    ):
        base = transformers.LlamaForCausalLM.from_pretrained(root / "base").eval()
        folders[name] = root / name
        with torch.inference_mode():
            logits[name] = adapted(base, folders[name], seed + 1, **settings)(TOKENS).logits[0]
    with torch.inference_mode():
        logits[""] = transformers.LlamaForCausalLM.from_pretrained(root / "base").eval()(TOKENS).logits[0]
    return root / "base", folders, logits


@torch.inference_mode()
def read(decoder: Decoder, adapters: Adapters, loras: list[LoRA | None], tokens_1T: torch.Tensor = TOKENS) -> list:
    """Logits (T, V) of the same text under each adapter, all in one pass."""
    length = tokens_1T.shape[1]
    caches = [decoder.new_cache(capacity=length) for _ in loras]
    with adapters.rows([(lora, length) for lora in loras]):
        x_TC = decoder.hidden_of_parts(tokens_1T[0].repeat(len(loras)), Parts([length] * len(loras), caches))
    return list(torch.split(decoder.logits(x_TC), length))


@pytest.mark.parametrize("case", CASES)
def test_equals_peft_wrapped_and_merged(case: str, tmp_path: Path) -> None:
    family, shape, settings = CASES[case]
    theirs = adapted(base_of(tmp_path / "base", family, shape), tmp_path / "adapter", 1, **settings)
    decoder = load_decoder(tmp_path / "base")
    before = decoder(TOKENS)
    adapters = Adapters(decoder)
    lora = adapters.load("one", tmp_path / "adapter")
    with torch.inference_mode(), adapters.rows([(lora, TOKENS.shape[1])]):
        ours = decoder(TOKENS)
    with torch.inference_mode():
        wrapped = theirs(TOKENS).logits
        merged = theirs.merge_and_unload()(TOKENS).logits
    assert torch.allclose(ours, wrapped, atol=2e-4) and torch.allclose(ours, merged, atol=2e-4)
    assert (ours - before).abs().max() > 0.1
    assert torch.equal(decoder(TOKENS), before)  # outside of the block, the base alone


def test_rows_of_different_adapters_run_together(world) -> None:
    base, folders, expected = world
    decoder = load_decoder(base)
    adapters = Adapters(decoder)
    loras = {name: adapters.load(name, folder) for name, folder in folders.items()} | {"": None}
    for names in (["all", "", "attention"], ["mlp", "mlp", "all", "", "attention"], ["", "mlp"], ["", ""]):
        for name, logits in zip(names, read(decoder, adapters, [loras[name] for name in names]), strict=True):
            assert torch.allclose(logits, expected[name], atol=2e-4), (names, name)


def test_a_row_without_an_adapter_is_exactly_the_base(world) -> None:
    base, folders, _ = world
    decoder = load_decoder(base)
    adapters = Adapters(decoder)
    plain, _ = read(decoder, adapters, [None, None])
    beside, _ = read(decoder, adapters, [None, adapters.load("all", folders["all"])])
    assert torch.equal(plain, beside)


def test_padding_behind_the_spans_has_no_adapter(world) -> None:
    base, folders, expected = world
    decoder = load_decoder(base)
    adapters = Adapters(decoder)
    lora = adapters.load("all", folders["all"])
    length = TOKENS.shape[1]
    with torch.inference_mode(), adapters.rows([(lora, length)]):
        padded_T = torch.cat([TOKENS[0], torch.zeros(5, dtype=torch.int64)])
        x_TC = decoder.hidden_of_parts(padded_T, Parts([length], [decoder.new_cache(capacity=length)]))
        logits = decoder.logits(x_TC[:length])
    assert torch.allclose(logits, expected["all"], atol=2e-4)


@pytest.mark.parametrize("policy", POLICIES)
def test_is_added_to_whatever_the_policy_multiplies(world, policy: str) -> None:
    base, folders, _ = world
    decoder = load_decoder(base)
    report = prepare(decoder, policy)
    if report.policy != policy:
        pytest.skip(str(report))
    adapters = Adapters(decoder)
    lora = adapters.load("all", folders["all"])
    attention, x = decoder.blocks[0].attention, torch.randn(5, 32)
    maps = {"query": attention.query, "key": attention.key, "value": attention.value}
    with torch.inference_mode():
        before = fused(x, *maps.values())
        with adapters.rows([(lora, 5)]):
            after = fused(x, *maps.values())
    for name, ours, plain in zip(maps, after, before, strict=True):
        thin = lora.thin[f"blocks.0.attention.{name}"]
        assert torch.allclose(ours - plain, x @ thin.down_RK.T @ thin.up_RN, atol=1e-5)


def test_loads_and_unloads_while_a_request_holds_one(world) -> None:
    base, folders, expected = world
    decoder = load_decoder(base)
    adapters = Adapters(decoder)
    held = adapters.load("one", folders["all"])
    assert adapters.bytes == held.bytes > 0
    adapters.unload("one")
    assert not adapters.loaded and adapters.bytes == 0
    other = adapters.load("one", folders["mlp"])  # the name is free at once
    assert held.digest != other.digest
    for name, logits in zip(["all", "mlp"], read(decoder, adapters, [held, other]), strict=True):
        assert torch.allclose(logits, expected[name], atol=2e-4)
    with pytest.raises(InputError, match="'one' already"):
        adapters.load("one", folders["mlp"])
    with pytest.raises(NotFound, match=r"no adapter 'two'\.\nLoaded: 'one'"):
        adapters.unload("two")


def written(running: Running) -> list[int]:
    return [token.id for token in running]


@pytest.mark.parametrize("reproducible", [False, True])
def test_an_engine_serves_each_request_with_its_own(world, reproducible: bool) -> None:
    """Each as a model with the merged weights writes, alone or together, with or without what others have read."""
    base, folders, _ = world
    prompt = TOKENS[0].tolist()
    settings = {"prompt": prompt, "max_tokens": 8, "sampling": Sampling(temperature=0)}
    merged = {"": transformers.LlamaForCausalLM.from_pretrained(base).eval()}
    for name, folder in folders.items():
        wrapped = peft.PeftModel.from_pretrained(transformers.LlamaForCausalLM.from_pretrained(base), folder)
        merged[name] = wrapped.merge_and_unload().eval()
    expected = {}
    for name, model in merged.items():
        found = model.generate(TOKENS, max_new_tokens=8, do_sample=False)
        expected[name] = found[0, len(prompt) :].tolist()
    assert len(set(map(tuple, expected.values()))) > 2
    engine = Engine(load_decoder(base), reproducible=reproducible)
    try:
        with pytest.raises(NotFound, match="no adapter 'all'"):
            engine.submit(Generation(**settings, adapter="all"))
        for name, folder in folders.items():
            engine.load_adapter(name, folder)
        assert engine.adapters.keys() == folders.keys()
        for _ in range(2):  # the second time from the prefix cache, which must keep adapters apart
            runs = {name: engine.submit(Generation(**settings, adapter=name or None)) for name in expected}
            assert {name: written(running) for name, running in runs.items()} == expected
        assert all(running.cached > 0 for running in runs.values())
        slow = engine.submit(Generation(**settings, adapter="all"))
        engine.unload_adapter("all")
        engine.load_adapter("all", folders["mlp"])  # the name means another one from now on
        assert written(engine.submit(Generation(**settings, adapter="all"))) == expected["mlp"]
        assert written(slow) == expected["all"]
    finally:
        engine.close()


def test_singly_gives_the_same_bits_in_any_company(world) -> None:
    base, folders, _ = world
    decoder = load_decoder(base)
    adapters = Adapters(decoder)
    loras = [adapters.load(name, folder) for name, folder in folders.items()]
    x = torch.randn(4, 32)
    attention, found = decoder.blocks[0].attention, []
    for company in ([loras[0]] * 4, [loras[0], *loras[1:], None], [loras[0], None, None, loras[2]]):
        with torch.inference_mode(), adapters.rows([(lora, 1) for lora in company], singly=True):
            found.append(attention.query(x)[0])
    assert torch.equal(found[0], found[1]) and torch.equal(found[0], found[2])


def test_memory_is_limited_before_anything_is_read(world) -> None:
    base, folders, _ = world
    needed = Adapters(load_decoder(base)).load("a", folders["all"]).bytes
    adapters = Adapters(load_decoder(base), max_bytes=2 * needed - 1)
    adapters.load("a", folders["all"])
    with pytest.raises(InputError, match=f"needs {needed:,} bytes, but of the {2 * needed - 1:,} .* {needed:,} are"):
        adapters.load("b", folders["all"])
    adapters.unload("a")
    adapters.load("b", folders["all"])


def broken(folder: Path, source: Path, *, config: dict[str, Any] | None = None, weights: Any = None) -> Path:
    folder.mkdir()
    values = json.loads((source / CONFIG).read_text()) | (config or {})
    tensors = load_file(source / WEIGHTS)
    (folder / CONFIG).write_text(json.dumps(values))
    save_file(weights(tensors) if weights else tensors, folder / WEIGHTS)
    return folder


KEY = "base_model.model.model.layers.1.mlp.up_proj.lora_{}.weight"


@pytest.mark.parametrize(
    ("config", "weights", "error", "said"),
    [
        ({"peft_type": "LOHA"}, None, Unsupported, "peft_type is 'LOHA'"),
        ({"use_dora": True}, None, InputError, "lacks '.*lora_magnitude_vector'"),
        ({"use_qalora": True}, None, Unsupported, "use_qalora is true"),
        ({"bias": "all"}, None, Unsupported, "bias is 'all'"),
        ({"modules_to_save": ["lm_head"]}, None, Unsupported, "modules_to_save"),
        ({"some_new_trick": 3}, None, Unsupported, "some_new_trick is 3"),
        ({"init_lora_weights": "pissa_niter_4"}, None, Unsupported, "alters the base"),
        ({"r": 0}, None, InputError, "r is 0"),
        ({"r": "4"}, None, InputError, "r is '4'"),
        ({"lora_alpha": None}, None, InputError, "lora_alpha is None"),
        ({"rank_pattern": {"up_proj": -1}}, None, InputError, r"rank_pattern\['up_proj'\] is -1"),
        ({"target_modules": None}, None, InputError, "target_modules is None"),
        ({"target_modules": "("}, None, InputError, "no pattern"),
        ({"target_modules": ["q_proj"]}, None, InputError, "holds '.*down_proj.lora_A.weight', which target_modules"),
        ({"r": 5}, None, InputError, r"lora_A.weight' has shape \[4, .*\], but rank 5"),
        (None, lambda t: {k: v for k, v in t.items() if k != KEY.format("B")}, InputError,
         r"lacks '.*1.mlp.up_proj.lora_B"),
        (None, lambda t: {k: v for k, v in t.items() if "1.mlp.up_proj" not in k}, InputError,
         r"lacks '.*1.mlp.up_proj.lora_A.weight', which target_modules"),
        (None, lambda t: t | {KEY.format("A"): torch.zeros(4, 33)}, InputError, r"shape \[4, 33\], .* needs \[4, 32\]"),
        (None, lambda t: t | {KEY.format("A"): torch.full((4, 32), torch.nan)}, InputError, "not finite"),
        (None, lambda t: t | {KEY.format("magnitude_vector"): torch.zeros(3)}, Unsupported, "no part of a plain LoRA"),
        (None, lambda t: {k.replace("up_proj", "lift"): v for k, v in t.items()}, InputError, "the module '.*lift'"),
        (None, lambda t: t | {k.replace("rs.1", "rs.2"): v.clone() for k, v in t.items()}, InputError, r"layers\.2\."),
        (None, lambda t: {}, InputError, "holds no tensors"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused_by_name(world, tmp_path: Path, config, weights, error, said: str) -> None:
    base, folders, _ = world
    adapters = Adapters(load_decoder(base))
    with pytest.raises(error, match=said):
        adapters.load("x", broken(tmp_path / "x", folders["all"], config=config, weights=weights))
    assert not adapters.loaded


@pytest.mark.parametrize("gone", [CONFIG, WEIGHTS])
def test_a_missing_or_damaged_file_is_named(world, tmp_path: Path, gone: str) -> None:
    base, folders, _ = world
    adapters = Adapters(load_decoder(base))
    with pytest.raises(InputError, match="is missing"):
        adapters.load("x", tmp_path / "nowhere")
    folder = broken(tmp_path / "x", folders["all"])
    (folder / gone).write_bytes(b"\x00")
    with pytest.raises(InputError, match=gone):
        adapters.load("x", folder)
    (folder / gone).unlink()
    with pytest.raises(InputError, match=f"{gone} is missing"):
        adapters.load("x", folder)


def test_adapters_that_come_and_go_leave_nothing_behind(world) -> None:
    base, folders, _ = world
    adapters = Adapters(load_decoder(base))

    def come_and_go(times: int) -> int:
        for _ in range(times):
            adapters.load("x", folders["all"])
            adapters.unload("x")
        gc.collect()
        return sys.getallocatedblocks()

    before = come_and_go(30)  # until what Python itself keeps is there
    tensors = len(load_file(folders["all"] / WEIGHTS))
    assert come_and_go(30) - before < 30 * tensors, "objects of each tensor stay behind"


def test_adapters_are_read_in_one_thread_whoever_asks(world, monkeypatch: pytest.MonkeyPatch) -> None:
    base, folders, _ = world
    adapters, threads = Adapters(load_decoder(base)), []

    def reading(*args: Any) -> LoRA:
        threads.append(threading.get_ident())
        return read_lora(*args)

    monkeypatch.setattr("windlass.serve.engine.adapters.lora.read_lora", reading)
    askers = [threading.Thread(target=adapters.load, args=(name, folders["all"])) for name in "abc"]
    for asker in askers:
        asker.start()
    for asker in askers:
        asker.join()
    adapters.load("d", folders["mlp"])
    assert len(threads) == 4 and len(set(threads)) == 1 and threading.get_ident() not in threads
