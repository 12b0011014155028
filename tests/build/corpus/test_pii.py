"""Personal data: each format found where it stands, checksums obeyed, masks that stay masks."""

from __future__ import annotations

import gzip
import itertools
import time
from collections.abc import Callable

import pytest
from bench import pii as bench_pii
from bench._data import data_folder
from hypothesis import given
from hypothesis import strategies as st

from windlass.build.corpus.pii import DEFAULT_KINDS, EVERY_KIND, Finding, checksums, find, mask

DATA = data_folder()


@pytest.mark.parametrize(
    ("text", "kind", "value"),
    [
        ("write to Ada.Byron+x@maths.ac.uk, please", "email", "Ada.Byron+x@maths.ac.uk"),
        ("from 8.8.4.4 it came", "ip", "8.8.4.4"),
        ("at 2a00:1450:4001:81b::200e.", "ip", "2a00:1450:4001:81b::200e"),
        ("MAC 00:1b:44:11:3a:b7", "mac", "00:1b:44:11:3a:b7"),
        ("card 4111 1111 1111 1111 now", "card", "4111 1111 1111 1111"),
        ("IBAN DE89 3704 0044 0532 0130 00.", "iban", "DE89 3704 0044 0532 0130 00"),
        ("SSN 460-89-9847", "national_id", "460-89-9847"),
        ("NI number AB 12 34 56 C", "national_id", "AB 12 34 56 C"),
        ("DNI 12345678Z", "national_id", "12345678Z"),
        ("CPF 529.982.247-25", "national_id", "529.982.247-25"),
        ("codice RSSMRA85T10A562S", "national_id", "RSSMRA85T10A562S"),
        ("hetu 131052-308T", "national_id", "131052-308T"),
        ("ring +46 (0)8 928 571 38 today", "phone", "+46 (0)8 928 571 38"),
        ("at 905-674-3793.", "phone", "905-674-3793"),
        ("(212) 555-0142 x17", "phone", "(212) 555-0142 x17"),
        ("https://me:secret12@host/x", "secret", "me:secret12"),
    ],
)
def test_each_format_is_found_where_it_stands(text: str, kind: str, value: str) -> None:
    start = text.index(value)
    assert find(text) == [Finding(kind, start, start + len(value))]  # type: ignore[arg-type]
    masked = mask(text, find(text))
    assert masked == text.replace(value, f"[{kind.upper()}]") and not find(masked, EVERY_KIND)


@pytest.mark.parametrize(
    "text",
    [
        "version 1.2.3 of 2024-05-17 at 11:34:35, pages 100-200, 3.14159265, 1,234,567.89",
        "127.0.0.1, 192.168.1.20 and 10.0.0.1 are nobody's; ::1 and fe80::1 neither",
        "std::vector<int>, abc::def and a[1:2:3]",
        "card 4111 1111 1111 1112 fails its check",
        "git@github.com:owner/name.git, user@example.com, noreply@host.org",
        "@decorator and x @ y, price $1234567, id 0x12345678, #1234567",
        "ISBN 978-3-16-148410-0 and 000-12-3456",
    ],
)
def test_what_only_looks_like_it_is_left_alone(text: str) -> None:
    assert find(text) == []


FRAGMENTS = [
    "ada@maths.org", "8.8.4.4", "2a00:1450:4001:81b::200e", "00:1b:44:11:3a:b7", "4111 1111 1111 1111", "460-89-9847",
    "DE89370400440532013000", "AB123456C", "12345678Z", "131052-308T", "+46 (0)8 928 571 38", "tel 555 123 4567",
    "sk-abcdefghijklmnop1234", "https://me:pass12word@host/", "born on 1970-01-02", "12 High Street",
    "My name is Ada Byron", "Dr. Who",
    "a", " ", "\n", ",", ".", "-", ":", "@", "(", "1", "22", "333", "é", "[EMAIL]", "x=", "//",
]  # fmt: skip


@given(st.lists(st.sampled_from(FRAGMENTS), max_size=14).map("".join) | st.text(max_size=80))
def test_findings_are_disjoint_and_what_is_masked_stays_masked(text: str) -> None:
    for kinds in (DEFAULT_KINDS, EVERY_KIND):
        findings = find(text, kinds)
        assert all(0 <= one.start < one.end <= len(text) and one.kind in kinds for one in findings)
        assert all(a.end <= b.start for a, b in itertools.pairwise(findings))
        masked = mask(text, findings)
        kept = [text[a:b] for a, b in itertools.pairwise([0, *(i for f in findings for i in f[1:]), len(text)])][::2]
        assert masked.startswith(kept[0]) and masked.endswith(kept[-1])
        for one in findings:
            assert f"[{one.kind.upper()}]" in masked


@given(st.lists(st.sampled_from(FRAGMENTS[:18]), min_size=1, max_size=6))
def test_each_datum_is_found_among_others_and_masking_twice_is_masking_once(data: list[str]) -> None:
    text = ";\n".join(f"so {datum} it is" for datum in data)
    findings = find(text, EVERY_KIND)
    masked = mask(text, findings)
    assert len(findings) >= len(data) - data.count("Dr. Who")
    assert find(masked, EVERY_KIND) == []


def test_only_the_kinds_asked_for_are_found() -> None:
    text = "ada@maths.org at 8.8.4.4, born on 1970-01-02"
    assert [one.kind for one in find(text, ["ip"])] == ["ip"]
    assert [one.kind for one in find(text, EVERY_KIND)] == ["email", "ip", "birth_date"]
    with pytest.raises(ValueError, match="telepathy"):
        find(text, ["telepathy"])  # type: ignore[list-item]
    with pytest.raises(ValueError, match="overlaps"):
        mask(text, [Finding("ip", 0, 5), Finding("ip", 3, 6)])


@pytest.mark.parametrize(
    ("check", "valid"),
    [
        (checksums.luhn, "79927398713"),
        (checksums.iban, "GB82WEST12345698765432"),
        (checksums.card, "378282246310005"),
        (checksums.dni, "X1234567L"),
        (checksums.nir, "255081416802538"),
        (checksums.cpf, "52998224725"),
        (checksums.hetu, "131052-308T"),
        (checksums.aadhaar, "234123412346"),
        (checksums.codice_fiscale, "RSSMRA85T10A562S"),
    ],
)
def test_checksums_accept_the_published_example_and_no_change_of_one_digit(
    check: Callable[[str], bool], valid: str
) -> None:
    assert check(valid)
    place = max(i for i, char in enumerate(valid) if char.isdigit())
    for digit in set("0123456789") - {valid[place]}:
        assert not check(valid[:place] + digit + valid[place + 1 :])


def test_clean_prose_has_no_findings() -> None:
    if not DATA.is_dir():
        pytest.skip(f"the public data folder is not at {DATA}")
    for name in ("Doyle_Hound", "Kipling_Kim", "Burnett_Garden"):
        for path in sorted((DATA / "pretrain/novels").glob(f"{name}*.txt.gz")):
            assert find(gzip.decompress(path.read_bytes()).decode()) == []


def test_what_is_found_on_public_sentences_is_right_and_most_of_what_is_there() -> None:
    if not (bench_pii.DATA / bench_pii.FILE).is_file():
        pytest.skip(f"the public data folder is not at {bench_pii.DATA}")
    rows = [
        row for row in bench_pii.sentences(bench_pii.DATA) if row.template % 2
    ]  # templates that no rule was fitted to
    counts = bench_pii.measured(rows, bench_pii.ours)
    precision, recall, f1 = bench_pii.scores(counts, DEFAULT_KINDS)
    assert precision > 0.98 and recall > 0.88 and f1 > 0.93
    for kind in ("email", "ip", "card", "iban", "national_id"):
        assert bench_pii.scores(counts, [kind])[2] > 0.97, kind


@pytest.mark.parametrize(
    "piece", ["A", "Aa ", "1 Aa ", "12 ", "a@", "1.1.1.", ":::", "ab:", "AB12", "4111 ", "0.5 ", "Apt. 1 ", "-", "+1 "]
)
def test_no_text_takes_more_than_linear_time(piece: str) -> None:
    def seconds(count: int) -> float:
        text = piece * (count // len(piece))
        started = time.process_time()
        find(text, EVERY_KIND)
        return time.process_time() - started

    seconds(1000)  # caches
    assert min(seconds(160_000) for _ in range(2)) < 0.05 + 14 * max(seconds(20_000), 0.005)  # quadratic: 64
