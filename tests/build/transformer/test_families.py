"""Every family against transformers: a random model of theirs gives the same logits and gradients here, what we save
gives the same logits there, and reading with a cache equals reading at once.

Sequences are longer than any window and than the context before RoPE scaling.
"""

from __future__ import annotations

import dataclasses
import json

import pytest
import torch
import transformers
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from windlass.build.transformer.decoder import Decoder
from windlass.build.transformer.families import FAMILIES
from windlass.build.transformer.families.links import export
from windlass.build.transformer.hf import from_hf, load_model, save_model, to_hf
from windlass.build.transformer.ragged import Parts
from windlass.core.errors import InputError

LENGTH = 48
SHAPE = {
    "vocab_size": 61,
    "hidden_size": 32,
    "intermediate_size": 40,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "initializer_range": 0.3,
    "bos_token_id": None,
    "eos_token_id": None,
    "pad_token_id": None,
}
MOE = {"moe_intermediate_size": 24, "num_experts": 5, "num_experts_per_tok": 2, "decoder_sparse_step": 2}
FULL, SLIDING = "full_attention", "sliding_attention"


def rope(kind: str = "default", theta: float = 1000.0, **more):
    return {"rope_parameters": {"rope_type": kind, "rope_theta": theta, **more}}


LLAMA3 = rope("llama3", factor=4.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=16)
YARN = rope("yarn", factor=4.0, original_max_position_embeddings=16)
LONGROPE = rope("longrope", short_factor=[1.0, 1.1, 1.3, 1.6], long_factor=[1.0, 2.0, 3.0, 4.5]) | {
    "original_max_position_embeddings": 24
}
GPT2 = {
    "vocab_size": 61, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64, "initializer_range": 0.2,
    "bos_token_id": None, "eos_token_id": None,
}  # fmt: skip

CASES: dict[str, tuple[str, dict[str, object]]] = {
    "gpt2": ("GPT2", GPT2),
    "gpt2-odd": ("GPT2", GPT2 | {"n_inner": 50, "activation_function": "relu", "tie_word_embeddings": False}),
    "llama": ("Llama", rope() | {"head_dim": 16}),
    "llama-tied-biased": ("Llama", rope() | {"tie_word_embeddings": True, "attention_bias": True, "mlp_bias": True}),
    "llama-linear": ("Llama", rope("linear", factor=3.0)),
    "llama3": ("Llama", LLAMA3),
    "llama-yarn": ("Llama", YARN),
    "llama-yarn-tempered": (
        "Llama",
        rope("yarn", factor=4.0, original_max_position_embeddings=16, attention_factor=1.3, beta_fast=16.0,
             truncate=False),
    ),
    "mistral": ("Mistral", rope() | {"sliding_window": 7}),
    "mistral-wide": ("Mistral", rope() | {"sliding_window": None, "head_dim": 12}),
    "qwen2": ("Qwen2", rope()),
    "qwen2-window": ("Qwen2", YARN | {"use_sliding_window": True, "sliding_window": 9, "max_window_layers": 1}),
    "qwen3": ("Qwen3", rope() | {"head_dim": 16}),
    "qwen3-window": (
        "Qwen3",
        rope() | {"head_dim": 8, "use_sliding_window": True, "sliding_window": 5,
                  "layer_types": [SLIDING, FULL, SLIDING]},
    ),
    "gemma2": ("Gemma2", rope() | {"head_dim": 8, "query_pre_attn_scalar": 17, "sliding_window": 6,
                                   "attn_logit_softcapping": 3.0, "final_logit_softcapping": 5.0}),
    "gemma2-uncapped": ("Gemma2", rope() | {"head_dim": 8, "sliding_window": 6, "attn_logit_softcapping": None,
                                            "final_logit_softcapping": None, "query_pre_attn_scalar": 8}),
    "gemma3": (
        "Gemma3Text",
        {
            "head_dim": 8, "query_pre_attn_scalar": 20, "sliding_window": 5, "num_hidden_layers": 7,
            "rope_parameters": {
                FULL: {"rope_type": "linear", "factor": 8.0, "rope_theta": 50_000.0},
                SLIDING: {"rope_type": "default", "rope_theta": 500.0},
            },
        },
    ),
    "mixtral": ("Mixtral", rope() | {"num_local_experts": 4, "num_experts_per_tok": 2, "sliding_window": 10}),
    "qwen2-moe": ("Qwen2Moe", rope() | MOE | {"shared_expert_intermediate_size": 20}),
    "qwen2-moe-window": (
        "Qwen2Moe",
        rope() | MOE | {"shared_expert_intermediate_size": 20, "norm_topk_prob": True, "use_sliding_window": True,
                        "sliding_window": 6, "decoder_sparse_step": 1, "mlp_only_layers": [1]},
    ),
    "qwen3-moe": ("Qwen3Moe", rope() | MOE | {"head_dim": 12, "norm_topk_prob": True}),
    "qwen3-moe-window": (
        "Qwen3Moe",
        rope() | MOE | {"head_dim": 12, "use_sliding_window": True, "sliding_window": 8, "decoder_sparse_step": 1},
    ),
    "phi3": ("Phi3", rope() | {"sliding_window": 11, "partial_rotary_factor": 0.5}),
    "phi3-longrope": ("Phi3", LONGROPE),
}  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module", params=CASES)
def pair(request, tmp_path_factory):
    """A random model of transformers and ours, read from its folder."""
    name, values = CASES[request.param]
    shape = {} if name == "GPT2" else SHAPE
    config = getattr(transformers, f"{name}Config")(**shape | values)
    torch.manual_seed(len(request.param))
    head = "GPT2LMHeadModel" if name == "GPT2" else f"{name.removesuffix('Text')}ForCausalLM"
    theirs = getattr(transformers, head)(config).eval()
    with torch.no_grad():  # norms and biases start as ones and zeros, which would hide mistakes
        for parameter in theirs.parameters():
            if parameter.ndim == 1:
                parameter.add_(torch.randn_like(parameter), alpha=0.3)
    folder = tmp_path_factory.mktemp(request.param)
    theirs.save_pretrained(folder)
    return theirs, load_model(folder), folder


def tokens(length: int = LENGTH, batch: int = 2) -> torch.Tensor:
    return torch.randint(61, (batch, length), generator=torch.Generator().manual_seed(5))


def test_logits_are_theirs(pair):
    theirs, ours, _ = pair
    with torch.inference_mode():
        for length in (LENGTH, 20):  # 20: below the longest original context
            x = tokens(length)
            expected = theirs(x).logits
            assert expected.std() > 0.05, "the comparison would be empty"
            torch.testing.assert_close(ours(x), expected, atol=1e-4, rtol=1e-4)


def test_gradients_of_all_weights_are_theirs(pair, tmp_path):
    theirs, ours, _ = pair
    x = tokens()
    for model, logits in ((ours, ours(x)), (theirs, theirs(x).logits)):
        model.zero_grad()
        torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), x[:, 1:].flatten()).backward()
    # Their gradients take the way their weights take, to disk and back, and so cross both weight maps.
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.data, parameter.grad = parameter.grad, parameter.data
    try:
        theirs.save_pretrained(tmp_path)
        expected = dict(load_model(tmp_path).named_parameters())
    finally:
        for parameter in theirs.parameters():
            parameter.data, parameter.grad = parameter.grad, parameter.data
    for name, parameter in ours.named_parameters():
        found, wanted = parameter.grad, expected[name].detach()
        assert wanted.abs().max() > 1e-6 or "key.bias" in name, f"{name} has no gradient: nothing would be compared"
        torch.testing.assert_close(found, wanted, atol=1e-4 * max(1.0, float(wanted.abs().max())), rtol=1e-3, msg=name)
    ours.zero_grad()


def test_what_we_save_they_load(pair, tmp_path):
    theirs, ours, folder = pair
    family = json.loads((folder / "config.json").read_text())["model_type"]
    save_model(ours, tmp_path, family=family)
    again, problems = type(theirs).from_pretrained(tmp_path, dtype=torch.float32, output_loading_info=True)
    assert not any(problems.values()), problems
    x = tokens()
    with torch.inference_mode():
        torch.testing.assert_close(again.eval()(x).logits, theirs(x).logits, atol=1e-5, rtol=1e-5)
    back = load_model(tmp_path)
    assert back.config == ours.config
    for name, tensor in ours.state_dict().items():
        assert torch.equal(tensor, back.state_dict()[name]), name


@pytest.mark.parametrize("pieces", [[LENGTH], [1] * LENGTH, [20, 1, 1, 13, 1, 12], [30, *[1] * 18]])
def test_reading_in_pieces_with_the_cache_equals_one_pass(pair, pieces):
    _, ours, _ = pair
    x = tokens()
    with torch.inference_mode():
        cache = ours.new_cache(batch=2, capacity=LENGTH)
        end = 0
        for part in x.split(pieces, dim=1):
            end += part.shape[1]
            logits = ours.prefill(part, cache)
            torch.testing.assert_close(logits, ours(x[:, :end])[:, -1], atol=2e-5, rtol=1e-4)
        assert cache.length == LENGTH
        cache.truncate(9)
        torch.testing.assert_close(ours.prefill(x[:, 9:15], cache), ours(x[:, :15])[:, -1], atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("singly", [False, True])
def test_texts_read_on_in_one_row_equal_each_read_alone(pair, singly):
    _, ours, _ = pair
    texts = [tokens(length, batch=1)[0] for length in (LENGTH, 20, 31)]
    caches = [ours.new_cache(capacity=LENGTH) for _ in texts]
    for cache, text in zip(caches, texts, strict=True):
        cache.stretched = ours.config.stretched(len(text))
    with torch.inference_mode():
        expected = [ours(text[None])[0] for text in texts]
        for lengths in [(20, 7, 0), (1, 1, 0), (1, 0, 9), (1, 1, 1), (24, 1, 20), (1, 10, 1)]:
            rows = [i for i, new in enumerate(lengths) if new]
            new = [texts[i][caches[i].length : caches[i].length + lengths[i]] for i in rows]
            parts = Parts([len(part) for part in new], [caches[i] for i in rows], singly=singly)
            padding = torch.zeros(3 if singly else 0, dtype=torch.int64)
            x = ours.logits(ours.hidden_of_parts(torch.cat([*new, padding]), parts))
            for i, found in zip(rows, x[: parts.total].split(parts.lengths), strict=True):
                end = caches[i].length
                torch.testing.assert_close(found, expected[i][end - lengths[i] : end], atol=3e-5, rtol=1e-4)
    assert [cache.length for cache in caches] == [len(text) for text in texts]


def test_packed_documents_do_not_see_each_other(pair):
    _, ours, _ = pair
    x = tokens(batch=1)
    documents = torch.tensor([[0] * 17 + [1] * 20 + [2] * 11])
    other = x.clone()
    other[0, :17] = (other[0, :17] + 1) % 61
    with torch.inference_mode():
        packed, changed = ours(x, documents_BT=documents), ours(other, documents_BT=documents)
        if ours.config.experts is None:
            assert torch.equal(packed[:, 17:], changed[:, 17:]), "a neighbour's tokens must not move a single bit"
        else:  # how many tokens share an expert's matrix product decides its rounding
            torch.testing.assert_close(packed[:, 17:], changed[:, 17:], atol=1e-5, rtol=1e-5)
        assert not torch.equal(packed[:, :17], changed[:, :17])
        separate = torch.cat([ours(part) for part in x.split([17, 20, 11], dim=1)], dim=1)
    torch.testing.assert_close(packed, separate, atol=2e-5, rtol=1e-4)


def test_counts_are_exact(pair):
    theirs, ours, _ = pair
    assert ours.config.parameters == sum(p.numel() for p in ours.parameters()) == sum(
        p.numel() for p in theirs.parameters()
    )  # fmt: skip
    matrices = sum(p.numel() for n, p in ours.blocks.named_parameters() if p.ndim > 1)
    assert ours.config.matrix_parameters == matrices


def test_bfloat16_stays_near(pair):
    _, ours, _ = pair
    with torch.inference_mode():
        exact, rough = ours(tokens()), ours(tokens(), dtype=torch.bfloat16)
    assert rough.dtype == torch.bfloat16
    assert (rough.float() - exact).abs().mean() < 0.15 * exact.abs().mean()


@pytest.mark.parametrize("name", ["mixtral", "qwen2-moe", "qwen3-moe"])
def test_balancing_loss_is_theirs(name, tmp_path):
    kind, values = CASES[name]
    config = getattr(transformers, f"{kind}Config")(**SHAPE | values)
    theirs = getattr(transformers, f"{kind}ForCausalLM")(config).eval()
    theirs.save_pretrained(tmp_path)
    ours = load_model(tmp_path)
    routing: list[torch.Tensor] = []
    ours(tokens(), routing=routing)
    from transformers.models.mixtral.modeling_mixtral import load_balancing_loss_func

    logits = theirs(tokens(), output_router_logits=True).router_logits
    assert len(routing) == len(logits) > 0
    experts = ours.config.experts
    for found, layer in zip(routing, logits, strict=True):  # theirs mixes the layers; the paper counts each by itself
        expected = load_balancing_loss_func((layer,), experts.count, experts.active)
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
        assert found.requires_grad


def test_shards_and_a_bare_models_checkpoint(tmp_path):
    theirs = transformers.LlamaForCausalLM(transformers.LlamaConfig(**SHAPE | {"tie_word_embeddings": True})).eval()
    theirs.save_pretrained(tmp_path / "shards", max_shard_size="20KB")
    assert len(list((tmp_path / "shards").glob("*.safetensors"))) > 2
    theirs.model.save_pretrained(tmp_path / "bare")
    with torch.inference_mode():
        expected = theirs(tokens()).logits
        for folder in ("shards", "bare"):
            torch.testing.assert_close(load_model(tmp_path / folder)(tokens()), expected, atol=1e-5, rtol=1e-4)
    sorted((tmp_path / "shards").glob("*.safetensors"))[1].unlink()
    with pytest.raises(InputError, match=r"model-00002-of-.*cannot be read"):
        load_model(tmp_path / "shards")


@pytest.mark.parametrize("name", ["gpt2", "mixtral", "phi3"])
def test_tensors_that_do_not_fit_are_refused_by_name(name, tmp_path):
    kind, values = CASES[name]
    config = getattr(transformers, f"{kind}Config")(**({} if kind == "GPT2" else SHAPE) | values)
    head = "GPT2LMHeadModel" if kind == "GPT2" else f"{kind}ForCausalLM"
    getattr(transformers, head)(config).save_pretrained(tmp_path)
    path = tmp_path / "model.safetensors"
    whole = load_file(path)
    odd = next(n for n in sorted(whole) if n.endswith(("c_attn.weight", "experts.3.w1.weight", "qkv_proj.weight")))
    for change, message in (
        (whole | {odd: whole[odd][:-1].contiguous()}, f"'{odd}' has shape"),
        ({n: t for n, t in whole.items() if n != odd}, f"lack the tensor '{odd}'"),
        (whole | {"surprise": torch.zeros(2)}, "unknown tensor 'surprise'"),
    ):
        save_file(change, path)
        with pytest.raises(InputError, match=message):
            load_model(tmp_path)


def test_a_family_refuses_what_it_cannot_express(pair, tmp_path):
    _, ours, folder = pair
    own = json.loads((folder / "config.json").read_text())["model_type"]
    for family in FAMILIES:
        try:
            values = to_hf(ours.config, family)
        except InputError as error:
            assert f"{family} cannot express" in error.message
            assert family != own
        else:
            assert values["model_type"] == family
    strange = dataclasses.replace(ours.config, logit_scale=0.5)
    with pytest.raises(InputError, match=r"cannot express logit_scale 0\.5"):
        save_model(Decoder(strange), tmp_path, family=own)


def test_every_tensor_of_every_family_is_named_once(pair):
    _, ours, folder = pair
    family = FAMILIES[json.loads((folder / "config.json").read_text())["model_type"]]
    links = list(family.links(ours.config))
    named = [name for link in links for name in link.ours]
    assert sorted(named) == sorted(ours.state_dict())
    assert len(export(ours.state_dict(), links)) == sum(len(link.theirs) for link in links)


JUNK = st.one_of(
    st.none(), st.booleans(), st.integers(-3, 70), st.floats(), st.text(max_size=5), st.just([]), st.just({}),
    st.just([None]), st.just({"rope_type": "yarn"}),
)  # fmt: skip


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.data())
def test_a_damaged_configuration_is_read_or_refused_but_never_breaks(pair, data):
    values = json.loads((pair[2] / "config.json").read_text())
    for key in data.draw(st.lists(st.sampled_from(sorted(values)), min_size=1, max_size=3)):
        values[key] = data.draw(JUNK)
    try:
        config = from_hf(values, "config.json")
    except InputError as error:
        assert error.message
    else:
        assert config.parameters > 0


def test_an_index_that_points_elsewhere_is_refused(tmp_path):
    transformers.LlamaForCausalLM(transformers.LlamaConfig(**SHAPE)).save_pretrained(tmp_path, max_shard_size="20KB")
    index = tmp_path / "model.safetensors.index.json"
    whole = json.loads(index.read_text())
    for change, message in (
        ({"weight_map": {"x": "../other.safetensors"}}, "names '../other.safetensors'"),
        ({"weight_map": [1]}, "is not an index"),
        ({}, "is not an index"),
    ):
        index.write_text(json.dumps(change))
        with pytest.raises(InputError, match=message):
            load_model(tmp_path)
    twice = tmp_path / "model-twice.safetensors"
    name, file = next(iter(whole["weight_map"].items()))
    save_file({name: load_file(tmp_path / file)[name]}, twice)
    index.write_text(json.dumps({"weight_map": whole["weight_map"] | {"copy": twice.name}}))
    with pytest.raises(InputError, match=f"'{name}' twice"):
        load_model(tmp_path)


def test_weights_that_are_pickled_or_quantised_are_refused(tmp_path):
    transformers.LlamaForCausalLM(transformers.LlamaConfig(**SHAPE)).save_pretrained(tmp_path)
    (tmp_path / "model.safetensors").rename(tmp_path / "pytorch_model.bin")
    with pytest.raises(InputError, match=r"pytorch_model\.bin is a pickle"):
        load_model(tmp_path)
    values = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(values | {"quantization_config": {"bits": 4}}))
    with pytest.raises(InputError, match=r"'quantization_config' is \{'bits': 4\}"):
        load_model(tmp_path)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # the compiler warns of itself
@pytest.mark.parametrize("name", ["gemma2", "mixtral"])
def test_compiled_blocks_give_the_same_gradients(name, tmp_path):
    kind, values = CASES[name]
    head = "GPT2LMHeadModel" if kind == "GPT2" else f"{kind.removesuffix('Text')}ForCausalLM"
    config = getattr(transformers, f"{kind}Config")(**({} if kind == "GPT2" else SHAPE) | values)
    getattr(transformers, head)(config).save_pretrained(tmp_path)
    model = load_model(tmp_path)
    documents = torch.tensor([[0] * 17 + [1] * 31, [0] * LENGTH])
    gradients = []
    for blocks in (list(model.blocks), [torch.compile(block, dynamic=False) for block in model.blocks]):
        model.zero_grad()
        x, sights = model.start(tokens(), documents_BT=documents)
        routing: list[torch.Tensor] = []
        for block, sight in zip(blocks, sights, strict=True):
            x = block(x, sight, routing)
        assert len(routing) == sum(model.config.sparse(layer) for layer in range(model.config.layers))
        (model.logits(model.norm(x)).square().mean() + sum(routing)).backward()
        gradients.append({name: p.grad.clone() for name, p in model.named_parameters()})
    for name, plain in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], plain, atol=1e-5, rtol=1e-3, msg=name)
