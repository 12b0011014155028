from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from windlass.build.transformer.encoder import Encoder, EncoderConfig  # noqa: E402
from windlass.core.errors import InputError, Unsupported  # noqa: E402

SMALL = EncoderConfig(vocabulary=50, hidden=24, layers=2, heads=3, inner=40, positions=16)


def small(seed: int = 0) -> Encoder:
    torch.manual_seed(seed)
    return Encoder(SMALL).eval()


def test_a_sequence_gives_the_same_alone_and_packed_among_others() -> None:
    encoder = small()
    rows = [torch.randint(50, (length,)) for length in (3, 3, 7, 1, 16, 7)]
    with torch.inference_mode():
        packed = encoder(torch.cat(rows), [len(row) for row in rows]).split([len(row) for row in rows])
        for row, part in zip(rows, packed):
            torch.testing.assert_close(part, encoder(row, [len(row)]), atol=1e-5, rtol=0)


def test_equals_transformers() -> None:
    transformers = pytest.importorskip("transformers")
    encoder = small()
    peer = transformers.BertModel(transformers.BertConfig(**SMALL.to_hf()), add_pooling_layer=False).eval()
    peer.load_state_dict(encoder.to_hf(), strict=False)
    rows = [torch.randint(50, (length,)) for length in (5, 5, 11)]
    with torch.inference_mode():
        ours = encoder(torch.cat(rows), [5, 5, 11]).split([5, 5, 11])
        for row, part in zip(rows, ours):
            torch.testing.assert_close(part, peer(row[None]).last_hidden_state[0], atol=1e-5, rtol=0)


def test_gradients_reach_every_weight() -> None:
    encoder = small()
    encoder(torch.randint(50, (16,)), [8, 8]).sum().backward()
    assert [name for name, weight in encoder.named_parameters() if weight.grad is None] == []


def test_weights_go_to_hugging_face_names_and_back() -> None:
    there, back = small(0), small(1)
    back.load_hf({f"bert.{name}": tensor for name, tensor in there.to_hf().items()} | {"cls.weight": torch.ones(1)})
    assert all(torch.equal(a, b) for a, b in zip(there.state_dict().values(), back.state_dict().values()))
    assert EncoderConfig.from_hf(SMALL.to_hf()) == SMALL


def test_broken_weights_are_named() -> None:
    weights = small().to_hf()
    name = "encoder.layer.1.attention.self.key.weight"
    with pytest.raises(InputError, match=rf"lack the tensor '{name}'"):
        small().load_hf({k: v for k, v in weights.items() if k != name})
    with pytest.raises(InputError, match=r"shape \(24, 24\).*expected \(40, 24\)"):
        small().load_hf({**weights, "encoder.layer.0.intermediate.dense.weight": torch.ones(24, 24)})
    with pytest.raises(InputError, match=r"'encoder\.layer\.2\.new'"):
        small().load_hf({**weights, "encoder.layer.2.new": torch.ones(1)})


def test_other_architectures_are_refused_by_name() -> None:
    with pytest.raises(Unsupported, match="hidden_act is 'relu'"):
        EncoderConfig.from_hf({**SMALL.to_hf(), "hidden_act": "relu"})
    with pytest.raises(InputError, match="hidden_size"):
        EncoderConfig.from_hf({"model_type": "bert", "vocab_size": 3})


@pytest.mark.parametrize("lengths", [[], [0, 4], [3], [5]])
def test_lengths_must_fit_the_tokens(lengths: list[int]) -> None:
    with pytest.raises(InputError, match="cannot be split"):
        small()(torch.zeros(4, dtype=torch.long), lengths)


def test_longer_than_the_positions_is_refused_with_both_numbers() -> None:
    with pytest.raises(InputError, match=r"17 tokens.*16 positions"):
        small()(torch.zeros(17, dtype=torch.long), [17])
