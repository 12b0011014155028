"""Headings of Markdown and reStructuredText, as sections with offsets. The text itself stays as it was written.

A section starts at its heading's line, and its `heading` is found verbatim in that line.
"""

from __future__ import annotations

import re

from windlass.core.documents import Section

_ATX = re.compile(r" {0,3}(#{1,6})(?:[ \t]+(.*?))??(?:[ \t]+#+)?[ \t]*$")
_FENCE = re.compile(r" {0,3}(`{3,}|~{3,})")
_SETEXT = re.compile(r" {0,3}(=+|-+)$")
_NOT_A_PARAGRAPH = re.compile(r"\s*(?:[-+*]\s|[>|]|\d+[.)]\s|#{1,6}\s|```|~~~|<|={2,}|\s{4})")
_RULE = re.compile(r"""([!-/:-@[-`{-~])\1+$""")
_MARKED = re.compile(r"\n {0,3}[#`~=-]")  # the lines that can matter; a literal in front makes the search quick
_RULED = re.compile(r"\n([!-/:-@[-`{-~])\1+(?=\n|\Z)")
_FRONT_MATTER = re.compile(r"---\n(.*?)\n(?:---|\.\.\.)(?:\n+|\Z)", re.DOTALL)
_FRONT_TITLE = re.compile(r"""^title:\s*(["']?)(.+?)\1\s*$""", re.MULTILINE)


def split_front_matter(text: str) -> tuple[str, str]:
    """(title or '', text without the YAML block that static site generators put before Markdown)."""
    match = _FRONT_MATTER.match(text)
    if match is None or ":" not in match[1]:
        return "", text
    title = _FRONT_TITLE.search(match[1])
    return (title[2] if title else ""), text[match.end() :]


def markdown_sections(text: str) -> list[Section]:
    """ATX (`## Heading`) and one-line setext headings outside fenced code (CommonMark 0.31, 4.2-4.3)."""
    sections: list[Section] = []
    fence = ""
    for mark in _MARKED.finditer(f"\n{text}"):  # the line end before a line stands where the line begins in `text`
        start = mark.start()
        line = _line(text, start)
        marks = _FENCE.match(line)
        if fence:
            if marks and marks[1].startswith(fence) and not line.strip(" `~"):
                fence = ""
        elif marks:
            fence = marks[1]
        elif match := _ATX.match(line):
            if match[2] and match[2].strip():
                sections.append(Section(start, len(match[1]), match[2].strip()))
        elif match := _SETEXT.match(line):
            above, title = _line_above(text, start)
            _, before = _line_above(text, above)
            if title.strip() and not before.strip() and not _NOT_A_PARAGRAPH.match(title):
                sections.append(Section(above, 1 if match[1][0] == "=" else 2, title.strip()))
    return sections


def rst_sections(text: str, base: int = 0) -> list[Section]:
    """Underlined titles, with or without an overline; levels in the order in which the styles first appear.

    `base` is added to every level. Plain text files are read by the same rule, which asks for an underline of one
    repeated mark, at least as long as the title, below a title that stands alone.
    """
    sections: list[Section] = []
    styles: list[str] = []
    for rule in _RULED.finditer(text):
        start, title = _line_above(text, rule.start() + 1)
        underline = rule[0][1:]
        if not title.strip() or len(underline) < len(title) or _RULE.match(title):
            continue
        _, above = _line_above(text, start)
        over = above == underline
        if (above.strip() and not over) or (title[0].isspace() and not over) or not any(map(str.isalnum, title)):
            continue
        style = rule[1] + ("+" if over else "")
        if style not in styles:
            styles.append(style)
        sections.append(Section(start, base + styles.index(style) + 1, title.strip()))
    return sections


def _line(text: str, start: int) -> str:
    end = text.find("\n", start)
    return text[start:] if end < 0 else text[start:end]


def _line_above(text: str, start: int) -> tuple[int, str]:
    """Where the line before the one at `start` begins, and that line; (0, '') above the first."""
    if start <= 0:
        return 0, ""
    above = text.rfind("\n", 0, start - 1) + 1
    return above, text[above : start - 1]
