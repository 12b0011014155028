"""Check digits find what they promise to find, and a number has just one."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from windlass.build.corpus.pii import checksums

DIGITS = st.text("0123456789", min_size=11, max_size=18)
IBANS = ["GB82WEST12345698765432", "DE89370400440532013000", "FR1420041010050500013M02606", "NO9386011117947"]
CARDS = ["4111111111111111", "5555555555554444", "378282246310005", "30569309025904", "6011111111111117"]


def swapped(value: str, place: int) -> str:
    return value[:place] + value[place + 1] + value[place] + value[place + 2 :]


@pytest.mark.parametrize("check", [checksums.luhn, checksums.aadhaar])
@given(body=st.text("23456789", min_size=1, max_size=1).flatmap(lambda first: DIGITS.map(lambda rest: first + rest)))
def test_of_ten_last_digits_one_is_right(check: Callable[[str], bool], body: str) -> None:
    assert sum(check(body + last) for last in "0123456789") == 1


@given(st.data())
def test_verhoeff_finds_every_swap_of_neighbours_and_every_wrong_digit(data: st.DataObject) -> None:
    body = data.draw(st.text("23456789", min_size=1, max_size=1)) + data.draw(DIGITS)
    number = next(body + last for last in "0123456789" if checksums.aadhaar(body + last))
    place = data.draw(st.integers(1, len(number) - 2))
    if number[place] != number[place + 1]:
        assert not checksums.aadhaar(swapped(number, place))
    other = data.draw(st.sampled_from([digit for digit in "0123456789" if digit != number[place]]))
    assert not checksums.aadhaar(number[:place] + other + number[place + 1 :])


@pytest.mark.parametrize("value", IBANS)
def test_an_iban_survives_no_change(value: str) -> None:
    assert checksums.iban(value)
    for place in range(4, len(value) - 1):
        if value[place] != value[place + 1]:
            assert not checksums.iban(swapped(value, place))
        if value[place].isdigit():
            assert not checksums.iban(f"{value[:place]}{(int(value[place]) + 1) % 10}{value[place + 1 :]}")
    assert not checksums.iban(value + "0") and not checksums.iban("ZZ" + value[2:])


@pytest.mark.parametrize("number", CARDS)
def test_a_card_has_an_issuer_and_a_check(number: str) -> None:
    assert checksums.card(number)
    assert not checksums.card(number[:-1] + str((int(number[-1]) + 1) % 10))
    assert not checksums.card("9" + number[1:]), "nobody issues these"


@given(st.text("0123456789", min_size=9, max_size=9))
def test_a_cpf_has_one_ending(body: str) -> None:
    assume(len(set(body)) > 1)
    assert sum(checksums.cpf(f"{body}{ending:02}") for ending in range(100)) == 1


def test_numbers_that_nobody_was_given() -> None:
    for wrong in ("000123456", "666123456", "123004567", "123450000"):
        assert not checksums.social_security(wrong)
    assert checksums.social_security("123456789")
    assert not any(checksums.cpf(digit * 11) for digit in "0123456789")
