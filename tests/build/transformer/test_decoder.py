"""The decoder against transformers' Llama (logits, gradients, both directions) and against itself with a cache."""

from __future__ import annotations

import dataclasses
import json

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from windlass.build.transformer.config import TransformerConfig
from windlass.build.transformer.decoder import Decoder
from windlass.build.transformer.families import FAMILIES
from windlass.build.transformer.hf import from_hf, load_model, save_model, to_hf
from windlass.build.transformer.init import initialise
from windlass.core.errors import InputError

SMALL = TransformerConfig(
    vocab_size=97, hidden=32, layers=3, heads=4, kv_heads=2, head_dim=8, ffn=48, context=160, rope_theta=5000.0
)


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def make(config: TransformerConfig = SMALL, seed: int = 1) -> Decoder:
    """A decoder all of whose weights matter: initialisation leaves some at zero and norms at one."""
    model = Decoder(config)
    initialise(model, seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(torch.randn(weight.shape, generator=generator), alpha=0.1)
    return model


def tokens(config: TransformerConfig, batch: int, length: int) -> torch.Tensor:
    return torch.randint(config.vocab_size, (batch, length), generator=torch.Generator().manual_seed(7))


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("kv_heads", [1, 2, 4])
def test_transformers_loads_what_we_save_with_equal_logits_and_gradients(tmp_path, tied, kv_heads):
    config = dataclasses.replace(SMALL, tied=tied, kv_heads=kv_heads)
    ours = make(config)
    save_model(ours, tmp_path, bos=0, eos=0)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32)
    x = tokens(config, 2, config.context)
    torch.testing.assert_close(ours(x), theirs(x).logits, atol=1e-4, rtol=1e-4)

    for model, logits in ((ours, ours(x)), (theirs, theirs(x).logits)):
        model.zero_grad()
        torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), x[:, 1:].flatten()).backward()
    their_gradients = {name: p.grad for name, p in theirs.named_parameters()}
    names = {link.ours[0]: link.theirs[0] for link in FAMILIES["llama"].links(config)}
    checked = 0
    for name, p in ours.named_parameters():
        torch.testing.assert_close(p.grad, their_gradients[names[name]], atol=1e-4, rtol=1e-3)
        assert p.grad.abs().max() > 1e-6, f"{name} has no gradient: the comparison would be empty"
        checked += 1
    assert checked == len(their_gradients)


@pytest.mark.parametrize("tied", [False, True])
def test_a_llama_made_by_transformers_gives_equal_logits_here(tmp_path, tied):
    torch.manual_seed(3)
    theirs = transformers.LlamaForCausalLM(
        transformers.LlamaConfig(
            vocab_size=83,
            hidden_size=48,
            intermediate_size=80,
            num_hidden_layers=2,
            num_attention_heads=6,
            num_key_value_heads=3,
            head_dim=16,  # on purpose not hidden_size / heads
            max_position_embeddings=200,
            rms_norm_eps=1e-4,
            rope_parameters={"rope_type": "default", "rope_theta": 777.0},
            tie_word_embeddings=tied,
            initializer_range=0.2,
        )
    ).eval()
    theirs.save_pretrained(tmp_path)
    ours = load_model(tmp_path)
    x = tokens(ours.config, 2, 200)
    with torch.inference_mode():
        torch.testing.assert_close(ours(x), theirs(x).logits, atol=1e-4, rtol=1e-4)


def test_greedy_text_equals_that_of_transformers(tmp_path):
    ours = make()
    save_model(ours, tmp_path)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32)
    prompt = tokens(SMALL, 1, 11)
    expected = theirs.generate(prompt, max_new_tokens=40, do_sample=False, pad_token_id=0)[0, 11:].tolist()
    found = []
    with torch.inference_mode():
        cache = ours.new_cache()
        logits = ours.prefill(prompt, cache)
        for _ in range(40):
            token = logits.argmax(-1)
            found.append(int(token))
            logits = ours.decode_step(token, cache)
    assert found == expected


@pytest.mark.parametrize("pieces", [[120], [1] * 120, [50, 1, 1, 30, 38], [119, 1]])
def test_reading_in_pieces_with_the_cache_equals_one_pass(pieces):
    model = make()
    x = tokens(SMALL, 2, 120)
    with torch.inference_mode():
        whole = model(x)
        cache = model.new_cache(batch=2)
        parts = [model(part, cache=cache) for part in x.split(pieces, dim=1)]
    torch.testing.assert_close(torch.cat(parts, dim=1), whole, atol=1e-5, rtol=1e-4)
    assert cache.length == 120


def test_truncating_the_cache_takes_back_what_was_read():
    model = make()
    x = tokens(SMALL, 1, 30)
    with torch.inference_mode():
        cache = model.new_cache()
        model.prefill(x, cache)
        cache.truncate(10)
        again = model.prefill(x[:, 10:20], cache)
        torch.testing.assert_close(again, model(x[:, :20])[:, -1], atol=1e-5, rtol=1e-4)


def test_later_tokens_do_not_change_earlier_logits():
    model = make()
    x = tokens(SMALL, 1, 64)
    changed = x.clone()
    changed[0, 40] = (changed[0, 40] + 1) % SMALL.vocab_size
    with torch.inference_mode():
        before, after = model(x), model(changed)
    assert torch.equal(before[:, :40], after[:, :40])
    assert not torch.equal(before[:, 40:], after[:, 40:])


def test_short_attention_for_compiled_training_equals_the_fused_kernel(monkeypatch):
    model = make()
    x = tokens(SMALL, 2, 100)
    gradients = []
    for compiling in (True, False):
        monkeypatch.setattr(torch.compiler, "is_compiling", lambda compiling=compiling: compiling)
        model.zero_grad()
        model(x).square().mean().backward()
        gradients.append([p.grad.clone() for p in model.parameters()])
    for explicit, kernel in zip(*gradients, strict=True):
        torch.testing.assert_close(explicit, kernel, atol=1e-5, rtol=1e-3)
    assert any(not torch.equal(a, b) for a, b in zip(*gradients, strict=True)), "both ways were taken"


def test_bfloat16_activations_stay_near_float32():
    model = make()
    x = tokens(SMALL, 1, 64)
    with torch.inference_mode():
        exact, rough = model(x), model(x, dtype=torch.bfloat16)
    assert rough.dtype == torch.bfloat16
    assert (rough.float() - exact).abs().mean() < 0.05 * exact.abs().mean()


def test_save_and_load_keep_every_bit(tmp_path):
    model = make()
    save_model(model, tmp_path)
    again = load_model(tmp_path)
    assert again.config == SMALL
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, again.state_dict()[name]), name


def test_parameter_count_is_exact():
    for config in (SMALL, dataclasses.replace(SMALL, tied=True)):
        assert config.parameters == sum(p.numel() for p in Decoder(config).parameters())


def test_too_long_sequences_are_refused():
    model = make()
    with pytest.raises(InputError, match="161 tokens"):
        model(tokens(SMALL, 1, 161))
    with torch.inference_mode(), pytest.raises(InputError, match="21 tokens"):
        cache = model.new_cache(capacity=20)
        model.prefill(tokens(SMALL, 1, 20), cache)
        model.decode_step(torch.tensor([1]), cache)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop("model.norm.weight"), "lack the tensor 'model.norm.weight'"),
        (lambda t: t.update(extra=torch.zeros(1)), "unknown tensor 'extra'"),
        (lambda t: t.update({"lm_head.weight": torch.zeros(3, 3)}), r"'lm_head.weight' has shape \[3, 3\]"),
    ],
)
def test_weights_that_do_not_fit_are_refused_by_name(tmp_path, change, message):
    save_model(make(), tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    change(tensors)
    save_file(tensors, tmp_path / "model.safetensors")
    with pytest.raises(InputError, match=message):
        load_model(tmp_path)


def test_damaged_files_are_refused(tmp_path):
    save_model(make(), tmp_path)
    whole = (tmp_path / "model.safetensors").read_bytes()
    (tmp_path / "model.safetensors").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match=r"model\.safetensors cannot be read"):
        load_model(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(InputError, match=r"config\.json cannot be read"):
        load_model(tmp_path)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("model_type", "mamba"),
        ("hidden_act", "quick_gelu"),
        ("rope_parameters", {"rope_type": "dynamic", "rope_theta": 1e4}),
        ("hidden_size", None),
    ],
)
def test_configurations_it_would_compute_differently_are_refused(key, value):
    with pytest.raises(InputError, match=key.split("_")[0]):
        from_hf({**to_hf(SMALL), key: value}, "config.json")


def test_configuration_survives_the_round_trip():
    assert from_hf(json.loads(json.dumps(to_hf(SMALL))), "config.json") == SMALL
    with pytest.raises(InputError, match="4 query heads cannot share 3"):
        dataclasses.replace(SMALL, kv_heads=3)
