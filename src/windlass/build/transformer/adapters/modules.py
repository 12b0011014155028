"""The modules that an adapter may change, under the names that a family gives them: from the families' own links."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable

from windlass.build.transformer.families.links import Link

_INNER = re.compile(
    r"(.+\.)?blocks\.\d+\.((attention|cross)\.(query|key|value|output)|mlp\.(shared\.)?(gate|up|down))\.weight"
)


def adaptable(links: Iterable[Link]) -> dict[str, Link]:
    """Their module -> the link of its matrix: those of attention and MLPs, without experts and routers."""
    return {
        link.theirs[0].removesuffix(".weight"): link
        for link in links
        if len(link.theirs) == 1 and all(map(_INNER.fullmatch, link.ours))
    }


def short(chosen: Collection[str], known: Collection[str]) -> list[str]:
    """The modules in PEFT's words: without their layers where that still means these and no others of `known`."""
    endings = sorted({_ending(module) for module in chosen})
    meant = {module for module in known if any(names(ending, module) for ending in endings)}
    return endings if meant == set(chosen) else sorted(chosen)


def names(ending: str, module: str) -> bool:
    """Whether PEFT takes an entry of a list of modules to mean this one."""
    return module == ending or module.endswith(f".{ending}")


def _ending(module: str) -> str:
    """What stands behind the last number: the part of a name that all layers share."""
    return re.split(r"\.\d+\.", module)[-1]
