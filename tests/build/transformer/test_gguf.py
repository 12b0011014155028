"""GGUF files: what is written is read back exactly, and nothing malformed gets through or costs memory."""

from __future__ import annotations

import dataclasses
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from gguf_world import BASE, CONFIGS, save_random
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from windlass.build.transformer.config import RopeScaling
from windlass.build.transformer.gguf.blocks import TYPES
from windlass.build.transformer.gguf.container import Reader
from windlass.build.transformer.gguf.exporting import export_gguf
from windlass.build.transformer.gguf.importing import import_gguf, load_gguf
from windlass.build.transformer.hf import load_decoder, save_model
from windlass.core.errors import InputError

TOKENS = torch.arange(40)[None] * 7 % 288


@pytest.mark.parametrize("name", CONFIGS)
def test_every_family_survives_the_way_there_and_back(name, tmp_path):
    ours = save_random(name, tmp_path / "model")
    written = export_gguf(tmp_path / "model", tmp_path / "m.gguf", type="f32", tokenizer=False)
    back = load_gguf(tmp_path / "m.gguf")
    assert set(written.types) == {"F32"}
    with torch.inference_mode():
        torch.testing.assert_close(back(TOKENS), ours(TOKENS), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", CONFIGS)
def test_a_file_becomes_a_folder_that_computes_the_same(name, tmp_path):
    ours = save_random(name, tmp_path / "model")
    export_gguf(tmp_path / "model", tmp_path / "m.gguf", type="f32", tokenizer=False)
    read = import_gguf(tmp_path / "m.gguf", tmp_path / "again")
    assert (read.parameters, read.tokenizer, read.name) == (ours.config.parameters, False, "model")
    with torch.inference_mode():
        torch.testing.assert_close(load_decoder(tmp_path / "again")(TOKENS), ours(TOKENS), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("type", "error"), [("f16", 2e-3), ("bf16", 1.6e-2), ("q8_0", 1e-2), ("q4_0", 0.15)])
def test_types_lose_no_more_than_their_bits(type, error, tmp_path):
    ours = save_random("llama", tmp_path / "model")
    written = export_gguf(tmp_path / "model", tmp_path / "m.gguf", type=type, tokenizer=False)
    assert written.types[type.upper()] == 3 * 7 + 2
    back = load_gguf(tmp_path / "m.gguf").state_dict()
    for name, tensor in ours.state_dict().items():
        assert (back[name] - tensor).abs().max() <= error * tensor.abs().max(), name
        assert tensor.dim() == 2 or torch.equal(back[name], tensor)


def test_the_same_model_gives_the_same_bytes(tmp_path):
    save_random("qwen3", tmp_path / "model")
    for name in ("a", "b"):
        export_gguf(tmp_path / "model", tmp_path / f"{name}.gguf", type="q8_0", tokenizer=False)
    assert (tmp_path / "a.gguf").read_bytes() == (tmp_path / "b.gguf").read_bytes()


# ---- types -----------------------------------------------------------------------------------------------------------


def _slowly(name: str, block: bytes) -> list[float]:
    """One block as ggml's C code reads it, number by number."""

    def half(at: int) -> float:
        return struct.unpack_from("<e", block, at)[0]

    def nibble(at: int, i: int, width: int) -> int:
        return block[at + i % width] >> (4 if i >= width else 0) & 15

    def bit(at: int, i: int) -> int:
        return block[at + i // 8] >> i % 8 & 1

    match name:
        case "Q8_0":
            return [half(0) * struct.unpack_from("<b", block, 2 + i)[0] for i in range(32)]
        case "Q4_0":
            return [half(0) * (nibble(2, i, 16) - 8) for i in range(32)]
        case "Q4_1":
            return [half(0) * nibble(4, i, 16) + half(2) for i in range(32)]
        case "Q5_0":
            return [half(0) * ((nibble(6, i, 16) | bit(2, i) << 4) - 16) for i in range(32)]
        case "Q5_1":
            return [half(0) * (nibble(8, i, 16) | bit(4, i) << 4) + half(2) for i in range(32)]
        case "Q4_K" | "Q5_K":
            out, packed = [], block[4:16]
            for group in range(8):
                if group < 4:
                    scale, least = packed[group] & 63, packed[group + 4] & 63
                else:
                    scale = packed[group + 4] & 15 | packed[group - 4] >> 6 << 4
                    least = packed[group + 4] >> 4 | packed[group] >> 6 << 4
                for i in range(32):
                    step = block[len(block) - 128 + group // 2 * 32 + i] >> (4 if group % 2 else 0) & 15
                    step |= (block[16 + i] >> group & 1) << 4 if name == "Q5_K" else 0
                    out.append(half(0) * scale * step - half(2) * least)
            return out
        case "Q6_K":
            out = []
            for i in range(256):
                part, within = divmod(i, 128)
                quarter, place = divmod(within, 32)
                low = block[part * 64 + (quarter % 2) * 32 + place] >> (4 if quarter >= 2 else 0) & 15
                high = block[128 + part * 32 + place] >> 2 * quarter & 3
                scale = struct.unpack_from("<b", block, 192 + i // 16)[0]
                out.append(half(208) * scale * ((low | high << 4) - 32))
            return out
    raise AssertionError(name)


@pytest.mark.parametrize("name", [name for name, layout in TYPES.items() if layout.block > 1])
def test_blocks_are_read_as_the_formula_says(name):
    random = np.random.default_rng(3)
    layout = TYPES[name]
    raw = random.integers(0, 256, (6, layout.bytes), dtype=np.uint8)
    for at in {"Q4_1": (0, 2), "Q5_1": (0, 2), "Q4_K": (0, 2), "Q5_K": (0, 2), "Q6_K": (208,)}.get(name, (0,)):
        raw[:, at : at + 2] = random.normal(0, 0.1, 6).astype("<f2")[:, None].view(np.uint8)
    slow = np.array([_slowly(name, row.tobytes()) for row in raw]).reshape(-1)
    np.testing.assert_allclose(layout.decode(raw.reshape(-1)), slow, rtol=2e-6, atol=1e-6)


@given(st.lists(st.floats(-1e4, 1e4, width=32), min_size=32, max_size=32))
def test_a_block_is_as_near_as_its_steps_allow(numbers):
    x = np.array(numbers, np.float32)
    largest = float(np.abs(x).max())
    for name, step in (("Q8_0", largest / 127), ("Q4_0", largest / 8)):
        back = TYPES[name].decode(TYPES[name].encode(x))
        # Half a step, the step itself rounded to a 16-bit float, and -8 having no positive twin.
        assert np.abs(back - x).max() <= step * (0.51 if name == "Q8_0" else 1.01) + largest * 1e-3 + 1e-5


# ---- what cannot be written ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"window": 8}, "window cannot be 8"),
        ({"norm": "layer"}, "norm cannot be 'layer'"),
        ({"rope_scaling": RopeScaling("yarn", 4.0, 16, fast=16.0)}, "rope_scaling"),
        ({"position": "alibi"}, "position is 'alibi'"),
        ({"logit_scale": 0.5}, "logit_scale"),
    ],
)
def test_what_llama_cpp_would_compute_otherwise_is_refused(changes, said, tmp_path):
    from gguf_world import random_decoder

    save_model(random_decoder(dataclasses.replace(BASE, **changes)), tmp_path / "model")
    with pytest.raises(InputError, match=said):
        export_gguf(tmp_path / "model", tmp_path / "m.gguf", tokenizer=False)
    assert not (tmp_path / "m.gguf").exists()


def test_a_window_is_no_obstacle_where_the_context_is_no_longer(tmp_path):
    from gguf_world import random_decoder

    ours = random_decoder(dataclasses.replace(BASE, window=24))
    save_model(ours, tmp_path / "model", family="mistral")
    export_gguf(tmp_path / "model", tmp_path / "m.gguf", type="f32", tokenizer=False, context=24)
    back = load_gguf(tmp_path / "m.gguf")
    with torch.inference_mode():
        torch.testing.assert_close(back(TOKENS[:, :24]), ours(TOKENS[:, :24]), rtol=1e-5, atol=1e-5)


def test_wrong_wishes_are_named(tmp_path):
    save_random("llama", tmp_path / "model")
    with pytest.raises(InputError, match="q3_k"):
        export_gguf(tmp_path / "model", tmp_path / "m.gguf", type="q3_k")
    with pytest.raises(InputError, match=r"tokenizer\.json is missing"):
        export_gguf(tmp_path / "model", tmp_path / "m.gguf")
    with pytest.raises(InputError, match="reads 1 to 64"):
        export_gguf(tmp_path / "model", tmp_path / "m.gguf", context=65, tokenizer=False)


# ---- malformed files -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def sound(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("gguf")
    save_random("llama", folder / "model")
    export_gguf(folder / "model", folder / "m.gguf", type="q8_0", tokenizer=False)
    return folder / "m.gguf"


def _refused(tmp_path: Path, raw: bytes, said: str) -> None:
    (tmp_path / "bad.gguf").write_bytes(raw)
    with pytest.raises(InputError, match=said):
        load_gguf(tmp_path / "bad.gguf")


def test_malformed_files_are_named(sound, tmp_path):
    raw = sound.read_bytes()
    _refused(tmp_path, b"", "cannot be read")
    _refused(tmp_path, b"PK\3\4" + raw[4:], "not a GGUF file")
    _refused(tmp_path, raw[:4] + struct.pack("<I", 1) + raw[8:], "version 1")
    _refused(tmp_path, raw[:4] + struct.pack(">I", 3) + raw[8:], "version 50331648")
    _refused(tmp_path, raw[:8] + struct.pack("<Q", 1 << 60) + raw[16:], "announces 1152921504606846976 tensors")
    _refused(tmp_path, raw[:16] + struct.pack("<Q", 1 << 60) + raw[24:], "key-values")
    _refused(tmp_path, raw[:24] + struct.pack("<Q", 1 << 62) + raw[32:], "it ends at byte")
    _refused(tmp_path, raw[:-1000], "should end at byte")
    entry = raw.index(b"blk.0.attn_q.weight") + len(b"blk.0.attn_q.weight")
    dimensions, kind, offset = entry, entry + 4 + 16, entry + 4 + 16 + 4
    _refused(tmp_path, raw[:dimensions] + struct.pack("<I", 9) + raw[dimensions + 4 :], "9 dimensions")
    _refused(tmp_path, raw[: dimensions + 4] + struct.pack("<Q", 1 << 55) + raw[dimensions + 12 :], "should end")
    _refused(tmp_path, raw[: dimensions + 4] + struct.pack("<Q", 33) + raw[dimensions + 12 :], "cannot hold")
    _refused(tmp_path, raw[:kind] + struct.pack("<I", 999) + raw[kind + 4 :], "type 999")
    _refused(tmp_path, raw[:offset] + struct.pack("<Q", 0) + raw[offset + 8 :], "inside another")
    _refused(tmp_path, raw[:offset] + struct.pack("<Q", 1 << 63) + raw[offset + 8 :], "should end")
    _refused(tmp_path, raw.replace(b"general.architecture", b"general.architectura"), "general.architecture is None")
    _refused(tmp_path, raw.replace(b"llama.block_count", b"llama.block_cannt"), "block_count|block_cannt")
    _refused(tmp_path, raw.replace(b"llama.vocab_size", b"llama.voc_x_size"), "voc_x_size")
    _refused(tmp_path, raw.replace(b"blk.1.attn_k.weight", b"blk.1.attn_j.weight"), "unknown tensor")
    _refused(tmp_path, raw.replace(b"blk.1.attn_k.weight", b"blk.0.attn_k.weight"), "twice")


@pytest.mark.parametrize("key", ["block_count", "embedding_length", "feed_forward_length", "attention.head_count"])
@pytest.mark.parametrize("number", [0, 1, 7, (1 << 31) - 1, (1 << 32) - 1])
def test_numbers_that_do_not_fit_the_tensors_are_refused_before_memory_is_taken(sound, tmp_path, key, number):
    raw = sound.read_bytes()
    at = raw.index(f"llama.{key}".encode()) + len(f"llama.{key}") + 4
    _refused(tmp_path, raw[:at] + struct.pack("<I", number) + raw[at + 4 :], "bad.gguf")


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_no_damage_escapes(sound, tmp_path, data):
    """A file is read, or refused by an `InputError`; anything else, such as a huge allocation, is a fault."""
    raw = bytearray(sound.read_bytes())
    header = raw.index(b"output.weight") + 64
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, header))
        piece = data.draw(st.binary(min_size=1, max_size=8))
        raw[at : at + len(piece)] = piece
    (tmp_path / "bad.gguf").write_bytes(bytes(raw[: data.draw(st.sampled_from([len(raw), header, header // 2]))]))
    try:
        load_gguf(tmp_path / "bad.gguf")
    except InputError as error:
        assert error.message
    Reader(sound)
