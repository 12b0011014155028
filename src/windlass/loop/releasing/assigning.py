"""Which variant a user or session gets: always the same, without anything being remembered.

Weighted rendezvous hashing (Thaler & Ravishankar 1998; weights after Schindelhauer & Schomaker 2005). Each unit draws
for each arm a number that depends on nothing but their names, and goes where -weight / ln(number) is largest. An arm
gets exactly its share; when a share grows, units move to that arm only, and those that it has stay.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping

from windlass.core.errors import InputError

_BITS = 53


def arm_of(salt: str, unit: str, shares: Mapping[str, float]) -> str:
    """The arm of a unit. `salt`: of the trial, so that another trial divides the same users otherwise.

    shares: above 0 for the arms that take part; those of share 0 get nobody. Raises `InputError` for no such arm.
    """
    best, most = None, -math.inf
    for arm, share in shares.items():
        if share <= 0:
            continue
        weight = -share / math.log(_number(salt, unit, arm))
        if weight > most:
            best, most = arm, weight
    if best is None:
        raise InputError("No arm has a share above 0.", "Give one of them a share.")
    return best


def _number(salt: str, unit: str, arm: str) -> float:
    """In the open interval (0, 1)."""
    digest = hashlib.sha256(f"{salt}\0{unit}\0{arm}".encode("utf-8", "surrogatepass")).digest()
    return (int.from_bytes(digest[:8], "big") >> (64 - _BITS) | 1) / 2.0**_BITS
