"""Personal data: each format found where it stands, checksums obeyed, masks that stay masks."""

from __future__ import annotations

import pytest

from windlass.build.corpus.pii import EVERY_KIND, Finding, find, mask


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
