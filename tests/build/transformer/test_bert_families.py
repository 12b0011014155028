"""BERT and ModernBERT against transformers: logits and gradients, longer than any window, files both ways."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file

from windlass.build.transformer.encoder import Encoder
from windlass.build.transformer.families import FAMILIES
from windlass.build.transformer.families.links import export
from windlass.build.transformer.hf import from_hf, load_encoder, load_model, save_model
from windlass.core.errors import InputError

transformers = pytest.importorskip("transformers")

VOCABULARY = 67
LENGTH = 60
"""Longer than ModernBERT's window (8 tokens), shorter than the table of positions (64)."""


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def bert(**changes):
    torch.manual_seed(1)
    config = transformers.BertConfig(
        vocab_size=VOCABULARY,
        hidden_size=32,
        num_hidden_layers=3,
        num_attention_heads=4,
        intermediate_size=56,
        max_position_embeddings=64,
        initializer_range=0.2,
        **changes,
    )
    return transformers.BertForMaskedLM(config)


def roberta(kind="Roberta", **changes):
    torch.manual_seed(1)
    config = getattr(transformers, f"{kind}Config")(
        vocab_size=VOCABULARY,
        hidden_size=32,
        num_hidden_layers=3,
        num_attention_heads=4,
        intermediate_size=56,
        max_position_embeddings=66,
        type_vocab_size=1,
        initializer_range=0.2,
        **changes,
    )
    return getattr(transformers, f"{kind}ForMaskedLM")(config)


def distilbert(**changes):
    torch.manual_seed(1)
    config = transformers.DistilBertConfig(
        vocab_size=VOCABULARY,
        dim=32,
        n_layers=3,
        n_heads=4,
        hidden_dim=56,
        max_position_embeddings=64,
        initializer_range=0.2,
        **changes,
    )
    return transformers.DistilBertForMaskedLM(config)


def modernbert(**changes):
    torch.manual_seed(2)
    config = transformers.ModernBertConfig(
        vocab_size=VOCABULARY,
        hidden_size=32,
        num_hidden_layers=5,
        num_attention_heads=4,
        intermediate_size=56,
        max_position_embeddings=128,
        local_attention=8,
        initializer_range=0.2,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        cls_token_id=1,
        sep_token_id=2,
        **changes,
    )
    return transformers.ModernBertForMaskedLM(config)


VARIANTS = {
    "bert": bert,
    "bert, gelu by tanh": lambda: bert(hidden_act="gelu_new"),
    "bert, relu": lambda: bert(hidden_act="relu"),
    "roberta": roberta,
    "xlm-roberta": lambda: roberta("XLMRoberta"),
    "distilbert": distilbert,
    "distilbert, relu": lambda: distilbert(activation="relu"),
    "modernbert": modernbert,
    "modernbert, with biases": lambda: modernbert(
        attention_bias=True, mlp_bias=True, norm_bias=True, classifier_bias=True
    ),
    "modernbert, another pattern": lambda: modernbert(
        layer_types=["sliding_attention", "full_attention", "full_attention", "sliding_attention", "full_attention"],
        rope_parameters={
            "full_attention": {"rope_type": "default", "rope_theta": 333.0},
            "sliding_attention": {"rope_type": "default", "rope_theta": 50.0},
        },
        decoder_bias=False,
    ),
    "modernbert, stretched": lambda: modernbert(
        rope_parameters={
            "full_attention": {"rope_type": "linear", "factor": 3.0, "rope_theta": 160_000.0},
            "sliding_attention": {"rope_type": "default", "rope_theta": 10_000.0},
        },
    ),
}


def shaken(model):
    """Every weight matters: norms are not at one, biases not at zero."""
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(torch.randn(weight.shape, generator=generator), alpha=0.1)
    return model.eval()


def tokens(batch: int = 2, length: int = LENGTH) -> torch.Tensor:
    return torch.randint(3, VOCABULARY, (batch, length), generator=torch.Generator().manual_seed(7))


def logits(model: Encoder, x_BT: torch.Tensor, **where: torch.Tensor) -> torch.Tensor:
    return model.logits(model.hidden(x_BT, **where))


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_model_made_by_transformers_gives_equal_logits_and_gradients_here(tmp_path: Path, variant: str) -> None:
    theirs = shaken(VARIANTS[variant]())
    theirs.save_pretrained(tmp_path)
    ours = load_model(tmp_path)
    assert isinstance(ours, Encoder)
    x = tokens()
    labels = x.roll(1, 1)
    found, expected = logits(ours, x), theirs(x).logits
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
    for scores in (found, expected):
        F.cross_entropy(scores.flatten(0, 1), labels.flatten()).backward()
    ours_by_name = export(
        {name: weight.grad for name, weight in ours.named_parameters()},
        FAMILIES[theirs.config.model_type].links(ours.config),
    )
    checked = 0
    for name, weight in theirs.named_parameters():
        if weight.grad is None:
            continue
        if name == "lm_head.decoder.weight":  # tied, and XLM-RoBERTa's head comes before its embedding
            name = "roberta.embeddings.word_embeddings.weight"
        torch.testing.assert_close(ours_by_name.pop(name), weight.grad, atol=1e-4, rtol=1e-3, msg=name)
        checked += 1
    assert not ours_by_name and checked > 20


@pytest.mark.parametrize("variant", VARIANTS)
def test_transformers_loads_what_we_save_with_equal_logits(tmp_path: Path, variant: str) -> None:
    theirs = shaken(VARIANTS[variant]())
    theirs.save_pretrained(tmp_path / "theirs")
    save_model(load_model(tmp_path / "theirs"), tmp_path / "ours")
    again = transformers.AutoModelForMaskedLM.from_pretrained(tmp_path / "ours", dtype=torch.float32).eval()
    x = tokens()
    with torch.inference_mode():
        assert torch.equal(again(x).logits, theirs(x).logits)
        torch.testing.assert_close(logits(load_model(tmp_path / "ours"), x), theirs(x).logits, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("make", [bert, modernbert])
def test_padding_is_a_document_of_its_own(tmp_path: Path, make) -> None:
    theirs = shaken(make())
    theirs.save_pretrained(tmp_path)
    ours = load_model(tmp_path)
    x, lengths = tokens(3), torch.tensor([LENGTH, 41, 5])
    real_BT = torch.arange(LENGTH) < lengths[:, None]
    with torch.inference_mode():
        found = logits(ours, x, documents_BT=torch.where(real_BT, 0, -1))
        expected = theirs(x, attention_mask=real_BT.long()).logits
    torch.testing.assert_close(found[real_BT], expected[real_BT], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("make", [bert, modernbert])
def test_documents_of_one_row_give_what_they_give_alone(tmp_path: Path, make) -> None:
    theirs = shaken(make())
    theirs.save_pretrained(tmp_path)
    ours = load_model(tmp_path)
    lengths = [23, 1, 30, 6]
    x = tokens(1)
    documents = torch.repeat_interleave(torch.arange(4), torch.tensor(lengths))[None]
    with torch.inference_mode():
        together = logits(ours, x, documents_BT=documents).split(lengths, dim=1)
        for part, found in zip(x.split(lengths, dim=1), together):
            torch.testing.assert_close(found, theirs(part).logits, atol=1e-4, rtol=1e-4)


def test_the_first_document_does_not_move_the_second(tmp_path: Path) -> None:
    shaken(modernbert()).save_pretrained(tmp_path)
    ours = load_model(tmp_path)
    documents = torch.tensor([[0] * 25 + [1] * 35])
    before, after = tokens(1), tokens(1)
    after[0, 7] = (after[0, 7] + 1) % VOCABULARY
    with torch.inference_mode():
        old, new = (logits(ours, x, documents_BT=documents) for x in (before, after))
    assert torch.equal(old[:, 25:], new[:, 25:])
    assert not torch.isclose(old[:, :25], new[:, :25]).any(-1).all()


def test_types_of_a_sentence_pair(tmp_path: Path) -> None:
    theirs = shaken(bert(type_vocab_size=3))
    theirs.save_pretrained(tmp_path)
    ours = load_model(tmp_path)
    x = tokens()
    types = (torch.arange(LENGTH) // 20).expand(2, -1)
    with torch.inference_mode():
        found, expected = logits(ours, x, types_BT=types), theirs(x, token_type_ids=types).logits
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


def test_bfloat16_activations_stay_near_float32(tmp_path: Path) -> None:
    shaken(modernbert()).save_pretrained(tmp_path)
    ours = load_model(tmp_path)
    with torch.inference_mode():
        exact, rough = ours.hidden(tokens()), ours.hidden(tokens(), dtype=torch.bfloat16)
    assert rough.dtype == torch.bfloat16
    assert (rough.float() - exact).abs().mean() < 0.05 * exact.abs().mean()


@pytest.mark.parametrize("kind", ["BertModel", "ModernBertModel"])
def test_a_model_saved_without_its_head_gives_the_same_vectors(tmp_path: Path, kind: str) -> None:
    whole = shaken(bert() if kind == "BertModel" else modernbert())
    theirs = whole.base_model
    theirs.save_pretrained(tmp_path / "theirs")
    save_model(load_model(tmp_path / "theirs"), tmp_path / "ours")
    again = transformers.AutoModel.from_pretrained(tmp_path / "ours", dtype=torch.float32).eval()
    with torch.inference_mode():
        expected = theirs(tokens()).last_hidden_state
        for folder in ("theirs", "ours"):
            ours = load_encoder(tmp_path / folder)
            assert ours.config.headless
            torch.testing.assert_close(ours.hidden(tokens()), expected, atol=1e-4, rtol=1e-4)
        assert torch.equal(again(tokens()).last_hidden_state, expected)


def test_files_of_old_are_read(tmp_path: Path) -> None:
    """Norms whose weight is gamma and bias beta, a pooler and a next-sentence head, copies of tied tensors."""
    theirs = shaken(bert())
    theirs.save_pretrained(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    old = {
        name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): tensor
        for name, tensor in weights.items()
    }
    old |= {
        "bert.embeddings.position_ids": torch.arange(64)[None],
        "bert.pooler.dense.weight": torch.ones(32, 32),
        "bert.pooler.dense.bias": torch.ones(32),
        "cls.seq_relationship.weight": torch.ones(2, 32),
        "cls.seq_relationship.bias": torch.ones(2),
        "cls.predictions.decoder.weight": weights["bert.embeddings.word_embeddings.weight"].clone(),
        "cls.predictions.decoder.bias": weights["cls.predictions.bias"].clone(),
    }
    save_file(old, tmp_path / "model.safetensors")
    with torch.inference_mode():
        torch.testing.assert_close(
            logits(load_model(tmp_path), tokens()), theirs(tokens()).logits, atol=1e-4, rtol=1e-4
        )


def test_a_head_that_differs_from_the_embedding_is_not_dropped(tmp_path: Path) -> None:
    theirs = shaken(bert())
    theirs.save_pretrained(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    head = weights["bert.embeddings.word_embeddings.weight"].flip(0).contiguous()
    save_file({**weights, "cls.predictions.decoder.weight": head}, tmp_path / "model.safetensors")
    ours = load_model(tmp_path)
    assert not ours.config.tied and torch.equal(ours.output_weight, head)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda w: w.pop("bert.encoder.layer.1.output.dense.bias"), r"lack the tensor 'bert\.encoder\.layer\.1"),
        (lambda w: w.update({"bert.encoder.layer.7.new": torch.ones(1)}), r"unknown tensor 'bert\.encoder\.layer\.7"),
        (lambda w: w.update({"cls.predictions.bias": torch.ones(3)}), r"'cls\.predictions\.bias' has shape \[3\]"),
        (lambda w: w.update({"classifier.weight": torch.ones(2, 32)}), r"unknown tensor 'classifier\.weight'"),
    ],
)  # fmt: skip
def test_weights_that_do_not_fit_are_refused_by_name(tmp_path: Path, change, message: str) -> None:
    shaken(bert()).save_pretrained(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    change(weights)
    save_file(weights, tmp_path / "model.safetensors")
    with pytest.raises(InputError, match=message):
        load_model(tmp_path)


@pytest.mark.parametrize(
    ("make", "key", "value"),
    [
        (bert, "hidden_act", "swiglu"),
        (bert, "position_embedding_type", "relative_key"),
        (bert, "is_decoder", True),
        (bert, "add_cross_attention", True),
        (bert, "pruned_heads", {"0": [1]}),
        (bert, "hidden_size", None),
        (bert, "num_attention_heads", 5),
        (bert, "chunk_size_feed_forward", None),  # changes memory, not results: it may be anything
        (modernbert, "hidden_activation", "snake"),
        (modernbert, "classifier_activation", "relu"),
        (modernbert, "classifier_bias", True),
        (modernbert, "rope_scaling", {"rope_type": "linear", "factor": 2.0}),
        (modernbert, "layer_types", ["full_attention", "linear_attention"]),
        (modernbert, "rope_parameters", {"sliding_attention": {"rope_type": "linear", "factor": 2.0}}),
    ],
)
def test_configurations_it_would_compute_differently_are_refused(make, key: str, value: object) -> None:
    values = make().config.to_dict()
    values["architectures"] = ["BertForMaskedLM" if make is bert else "ModernBertForMaskedLM"]
    from_hf(values, "config.json")
    if key == "chunk_size_feed_forward":
        from_hf({**values, key: 7}, "config.json")
        return
    named = "hidden_size" if key == "num_attention_heads" else key
    with pytest.raises(InputError, match=rf"config\.json: '?{named}"):
        from_hf({**values, key: value}, "config.json")
