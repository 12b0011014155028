"""How much models read and write at once, from a dated table in the package, which `windlass.toml` can extend.

As with prices nothing is fetched, and what the table does not know is None: nothing is then refused for its length.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources

from windlass.core.pricing import undated


@dataclass(frozen=True, slots=True)
class Window:
    """In tokens."""

    context: int
    """Prompt and answer together."""
    input: int | None = None
    """Prompt alone, where that is limited."""
    output: int | None = None
    """Answer alone, reasoning included."""
    as_of: str = ""
    """The day on which the provider said so."""
    source: str = ""


@cache
def known_windows() -> Mapping[str, Window]:
    """The table in the package: "provider/model" -> window."""
    table = json.loads(resources.files("windlass.core").joinpath("windows.json").read_text(encoding="utf-8"))
    return {
        f"{provider}/{model}": Window(**{"as_of": entry["as_of"], "source": entry["source"], **numbers})
        for provider, entry in table.items()
        for model, numbers in entry["models"].items()
    }


def window(model: str, provider: str, *, extra: Mapping[str, Window] | None = None) -> Window | None:
    """The window of a provider's model; a date at the name's end may be missing in the table. `extra` (the `[windows]`
    of `windlass.toml`) goes before it, and may leave the provider out."""
    for name in dict.fromkeys((model, undated(model))):
        keys = (f"{provider}/{name}", name)
        if extra and (found := next((extra[key] for key in keys if key in extra), None)) is not None:
            return found
        if (known := known_windows().get(keys[0])) is not None:
            return known
    return None
