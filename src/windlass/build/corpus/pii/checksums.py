"""Check digits: what tells a card, an account or a citizen's number from any other number of that length."""

from __future__ import annotations

_IBAN_LENGTHS = {
    "AD": 24, "AE": 23, "AL": 28, "AT": 20, "AZ": 28, "BA": 20, "BE": 16, "BG": 22, "BH": 22, "BR": 29, "BY": 28,
    "CH": 21, "CR": 22, "CY": 28, "CZ": 24, "DE": 22, "DK": 18, "DO": 28, "EE": 20, "EG": 29, "ES": 24, "FI": 18,
    "FO": 18, "FR": 27, "GB": 22, "GE": 22, "GI": 23, "GL": 18, "GR": 27, "GT": 28, "HR": 21, "HU": 28, "IE": 22,
    "IL": 23, "IQ": 23, "IS": 26, "IT": 27, "JO": 30, "KW": 30, "KZ": 20, "LB": 28, "LC": 32, "LI": 21, "LT": 20,
    "LU": 20, "LV": 21, "LY": 25, "MC": 27, "MD": 24, "ME": 22, "MK": 19, "MR": 27, "MT": 31, "MU": 30, "NL": 18,
    "NO": 15, "PK": 24, "PL": 28, "PS": 29, "PT": 25, "QA": 29, "RO": 24, "RS": 22, "SA": 24, "SC": 31, "SE": 24,
    "SI": 19, "SK": 24, "SM": 27, "ST": 25, "SV": 28, "TL": 23, "TN": 24, "TR": 26, "UA": 29, "VA": 22, "VG": 24,
    "XK": 20,
}  # fmt: skip
"""Characters by country: the registry of ISO 13616."""
_DNI = "TRWAGMYFPDXBNJZSQVHLCKE"
_HETU = "0123456789ABCDEFHJKLMNPRSTUVWXY"
_VERHOEFF_PRODUCT = (
    "0123456789", "1234067895", "2340178956", "3401289567", "4012395678",
    "5987604321", "6598710432", "7659821043", "8765932104", "9876543210",
)  # fmt: skip
_VERHOEFF_TURN = "1576283094"
_FISCAL_ODD = {
    **dict(zip("BAKPLCQDREVOSFTGUHMINJWZYX", range(26))),
    **dict(zip("0123456789", (1, 0, 5, 7, 9, 13, 15, 17, 19, 21))),
}
"""Values of the characters on odd places."""


def luhn(digits: str) -> bool:
    """ISO/IEC 7812-1, of cards and many numbers besides."""
    doubled = [int(d) * 2 for d in digits[-2::-2]]
    return (sum(map(int, digits[-1::-2])) + sum(d - 9 if d > 9 else d for d in doubled)) % 10 == 0


def iban(value: str) -> bool:
    """ISO 13616 with the check of ISO 7064 (mod 97-10); no spaces, capital letters."""
    if _IBAN_LENGTHS.get(value[:2]) != len(value):
        return False
    return int("".join(str(int(char, 36)) for char in value[4:] + value[:4])) % 97 == 1


def card(digits: str) -> bool:
    """The Luhn check, and a beginning and length that an issuer has."""
    n, two, four = len(digits), int(digits[:2]), int(digits[:4])
    issued = (
        (digits[0] == "4" and n in (13, 16, 19))
        or (n == 16 and (51 <= two <= 55 or 2221 <= four <= 2720 or two in (35, 60, 64, 65)))
        or (n == 15 and (two in (34, 37) or four in (1800, 2131)))
        or (n == 14 and two in (30, 36, 38, 39))
        or (12 <= n <= 19 and (two in (50, 62) or 56 <= two <= 69 or 3528 <= four <= 3589))
    )
    return issued and luhn(digits)


def social_security(digits: str) -> bool:
    """United States: areas, groups and serials that are issued, those of the tax office (ITIN, 9xx) too."""
    return digits[:3] not in ("000", "666") and digits[3:5] != "00" and digits[5:] != "0000"


def dni(value: str) -> bool:
    """Spain, DNI and NIE: the letter is the number modulo 23."""
    number = value[:-1].translate(str.maketrans("XYZ", "012"))
    return _DNI[int(number) % 23] == value[-1]


def nir(digits: str) -> bool:
    """France, 15 digits (Corsican letters aside): the last two complete the others modulo 97."""
    return digits[0] in "1278" and 97 - int(digits[:13]) % 97 == int(digits[13:])


def cpf(digits: str) -> bool:
    """Brazil: two weighted sums modulo 11."""
    if len(set(digits)) == 1:
        return False
    for n in (9, 10):
        rest = sum(int(digits[i]) * (n + 1 - i) for i in range(n)) * 10 % 11 % 10
        if rest != int(digits[n]):
            return False
    return True


def hetu(value: str) -> bool:
    """Finland: the last character is date and serial modulo 31."""
    return _HETU[int(value[:6] + value[7:10]) % 31] == value[10]


def aadhaar(digits: str) -> bool:
    """India: the check of Verhoeff (1969), which finds every swap of neighbours."""
    if digits[0] in "01":
        return False
    state = 0
    for place, digit in enumerate(reversed(digits)):
        for _ in range(place % 8):
            digit = _VERHOEFF_TURN[int(digit)]
        state = int(_VERHOEFF_PRODUCT[state][int(digit)])
    return state == 0


def codice_fiscale(value: str) -> bool:
    """Italy: odd and even places have different values; their sum modulo 26 is the last letter."""
    total = sum(
        _FISCAL_ODD[char] if place % 2 == 0 else (int(char) if char.isdigit() else ord(char) - 65)
        for place, char in enumerate(value[:15])
    )
    return chr(65 + total % 26) == value[15]
