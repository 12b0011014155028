"""Personal data in a text: where it stands, of which kind, and the text without it.

By rule only, so that every finding can be explained: a format, and where the format has one its checksum. What a rule
cannot carry for any text, such as names, is looked for only when asked (`EVERY_KIND`); docs/lab.md says how much of
each kind is found on a public set and how much of what is found is right.
"""

from __future__ import annotations

from windlass.build.corpus.pii.finding import DEFAULT_KINDS, EVERY_KIND, Finding, Kind, find, mask

__all__ = ["DEFAULT_KINDS", "EVERY_KIND", "Finding", "Kind", "find", "mask"]
