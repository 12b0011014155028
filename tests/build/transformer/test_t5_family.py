"""T5 (v1.0 and v1.1) against transformers: logits, gradients, files both ways, padding, packing and greedy text."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file

from windlass.build.transformer.config import TransformerConfig
from windlass.build.transformer.encoder_decoder import EncoderDecoder
from windlass.build.transformer.families import FAMILIES
from windlass.build.transformer.families.links import export
from windlass.build.transformer.generating import generate
from windlass.build.transformer.hf import from_hf, load_decoder, load_encoder, load_model, save_model
from windlass.core.errors import InputError

transformers = pytest.importorskip("transformers")

VOCABULARY = 61
SOURCE, TARGET = 50, 40
"""Both longer than the largest distance that has a bucket of its own (20)."""

GREEDY = {"do_sample": False, "num_beams": 1, "use_cache": False}
"""Without its cache, which in transformers 5.23 is too small for a decoder of more layers than the encoder."""


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def t5(**changes):
    torch.manual_seed(1)
    config = transformers.T5Config(
        **{
            "vocab_size": VOCABULARY,
            "d_model": 32,
            "d_kv": 12,  # on purpose not d_model / num_heads
            "d_ff": 56,
            "num_layers": 2,
            "num_decoder_layers": 3,
            "num_heads": 4,
            "relative_attention_num_buckets": 8,
            "relative_attention_max_distance": 20,
            "decoder_start_token_id": 0,
            **changes,
        }
    )
    model = transformers.T5ForConditionalGeneration(config).eval()
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(torch.randn(weight.shape, generator=generator), alpha=0.1)
    return model


def v11(**changes):
    return t5(feed_forward_proj="gated-gelu", tie_word_embeddings=False, **changes)


def untied():
    """Version 1.1 as published: the head is a matrix of its own."""
    model = v11()
    model.lm_head.weight = torch.nn.Parameter(model.lm_head.weight.detach().flip(0) * 0.7)
    return model


VARIANTS = {
    "v1.0": t5,
    "v1.1, tied": v11,
    "v1.1, with its own head": untied,
    "gated by SiLU": lambda: t5(feed_forward_proj="gated-silu"),
}


def tokens(length: int, batch: int = 2, seed: int = 7) -> torch.Tensor:
    return torch.randint(2, VOCABULARY, (batch, length), generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_model_made_by_transformers_gives_equal_logits_and_gradients_here(tmp_path: Path, variant: str) -> None:
    theirs = VARIANTS[variant]()
    theirs.save_pretrained(tmp_path)
    ours = load_model(tmp_path)
    assert isinstance(ours, EncoderDecoder)
    source, target = tokens(SOURCE), tokens(TARGET, seed=8)
    found = ours(source, target)
    expected = theirs(input_ids=source, decoder_input_ids=target).logits
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
    for scores in (found, expected):
        F.cross_entropy(scores.flatten(0, 1), target.roll(-1, 1).flatten()).backward()
    ours_by_name = export(
        {name: weight.grad for name, weight in ours.named_parameters()}, FAMILIES["t5"].links(ours.config)
    )
    checked = 0
    for name, weight in theirs.named_parameters():
        torch.testing.assert_close(ours_by_name.pop(name), weight.grad, atol=1e-4, rtol=1e-3, msg=name)
        assert weight.grad.abs().max() > 1e-7, f"{name} has no gradient: the comparison would be empty"
        checked += 1
    assert not ours_by_name and checked > 50


@pytest.mark.parametrize("variant", VARIANTS)
def test_transformers_loads_what_we_save_with_equal_logits(tmp_path: Path, variant: str) -> None:
    theirs = VARIANTS[variant]()
    theirs.save_pretrained(tmp_path / "theirs")
    save_model(load_model(tmp_path / "theirs"), tmp_path / "ours")
    again = transformers.AutoModelForSeq2SeqLM.from_pretrained(tmp_path / "ours", dtype=torch.float32).eval()
    source, target = tokens(SOURCE), tokens(TARGET, seed=8)
    with torch.inference_mode():
        expected = theirs(input_ids=source, decoder_input_ids=target).logits
        assert torch.equal(again(input_ids=source, decoder_input_ids=target).logits, expected)
        torch.testing.assert_close(load_model(tmp_path / "ours")(source, target), expected, atol=1e-4, rtol=1e-4)


def test_padding_of_the_source_is_a_document_of_its_own(tmp_path: Path) -> None:
    theirs = v11()
    theirs.save_pretrained(tmp_path)
    ours = load_model(tmp_path)
    source, target = tokens(SOURCE, 3), tokens(TARGET, 3, seed=8)
    real_BS = torch.arange(SOURCE) < torch.tensor([SOURCE, 31, 4])[:, None]
    with torch.inference_mode():
        found = ours(source, target, source_documents_BS=torch.where(real_BS, 0, -1))
        expected = theirs(input_ids=source, attention_mask=real_BS.long(), decoder_input_ids=target).logits
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


def test_pairs_of_one_row_give_what_they_give_alone(tmp_path: Path) -> None:
    theirs = t5()
    theirs.save_pretrained(tmp_path)
    ours = load_model(tmp_path)
    source, target = tokens(SOURCE, 1), tokens(TARGET, 1, seed=8)
    source_lengths, target_lengths = [22, 3, 25], [9, 30, 1]
    numbers = torch.arange(3)
    with torch.inference_mode():
        together = ours(
            source,
            target,
            source_documents_BS=torch.repeat_interleave(numbers, torch.tensor(source_lengths))[None],
            target_documents_BT=torch.repeat_interleave(numbers, torch.tensor(target_lengths))[None],
        ).split(target_lengths, dim=1)
        parts = zip(source.split(source_lengths, dim=1), target.split(target_lengths, dim=1), together)
        for from_, to, found in parts:
            expected = theirs(input_ids=from_, decoder_input_ids=to).logits
            torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("variant", VARIANTS)
def test_greedy_text_equals_that_of_transformers(tmp_path: Path, variant: str) -> None:
    theirs = VARIANTS[variant]()
    theirs.save_pretrained(tmp_path)
    ours = load_model(tmp_path)
    source = tokens(SOURCE, 4)
    real_BS = torch.arange(SOURCE) < torch.tensor([SOURCE, 31, 9, 1])[:, None]
    expected = theirs.generate(source, attention_mask=real_BS.long(), max_new_tokens=TARGET, **GREEDY)
    found = generate(ours, source, start=0, end=1, most=TARGET, source_documents_BS=torch.where(real_BS, 0, -1))
    for row, text in zip(expected.tolist(), found, strict=True):
        written = row[1:]  # after the start token
        assert text == (written[: written.index(1)] if 1 in written else written)
    assert len({tuple(text) for text in found}) > 1, "all sources gave the same text: the comparison would be weak"


def test_our_saved_model_writes_the_same_in_transformers(tmp_path: Path) -> None:
    v11().save_pretrained(tmp_path / "theirs")
    ours = load_model(tmp_path / "theirs")
    save_model(ours, tmp_path / "ours", bos=0, eos=1, pad=0)
    again = transformers.AutoModelForSeq2SeqLM.from_pretrained(tmp_path / "ours", dtype=torch.float32).eval()
    source = tokens(SOURCE, 1)
    written = again.generate(source, max_new_tokens=20, **GREEDY)[0, 1:].tolist()
    assert generate(ours, source, start=0, end=1, most=20) == [written[: written.index(1)] if 1 in written else written]


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("feed_forward_proj", "gated-swish"),
        ("is_encoder_decoder", False),
        ("dense_act_fn", "gelu"),
        ("is_gated_act", True),
        ("d_model", None),
    ],
)
def test_configurations_it_would_compute_differently_are_refused(key: str, value: object) -> None:
    values = t5().config.to_dict()
    assert isinstance(from_hf(values, "config.json"), TransformerConfig)
    with pytest.raises(InputError, match=rf"config\.json: '{key}'"):
        from_hf({**values, key: value}, "config.json")


def test_old_files_with_copies_of_the_embedding_and_an_unused_bias_are_read(tmp_path: Path) -> None:
    theirs = t5()
    theirs.save_pretrained(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    for copy in ("encoder.embed_tokens.weight", "decoder.embed_tokens.weight", "lm_head.weight"):
        weights[copy] = weights["shared.weight"].clone()
    weights["decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight"] = torch.ones(8, 4)
    save_file(weights, tmp_path / "model.safetensors")
    source, target = tokens(SOURCE), tokens(TARGET, seed=8)
    with torch.inference_mode():
        expected = theirs(input_ids=source, decoder_input_ids=target).logits
        torch.testing.assert_close(load_model(tmp_path)(source, target), expected, atol=1e-4, rtol=1e-4)


def test_an_encoder_decoder_is_neither_decoder_nor_encoder(tmp_path: Path) -> None:
    t5().save_pretrained(tmp_path)
    for load in (load_decoder, load_encoder):
        with pytest.raises(InputError, match="holds a model that is not"):
            load(tmp_path)
