"""The first sentence of a piece of documentation, and whether it would do as a question.

A person who looks something up says what it does in about the words its author chose for the first sentence. Taken
out of the indexed text, such a sentence asks for the rest of its own passage.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

SHORTEST, LONGEST = 25, 250
_CODE_INDENT = 4
_CONTENT_WORDS = 3
_ROOM_LEFT = 40
"""Letters and digits that must remain around a question: something has to be left to be found."""

_BLOCK = re.compile(
    r"""[ \t]*(?:
        (?P<fence>```|~~~).*?(?:^[ \t]*(?P=fence)[`~]*[ \t]*$|\Z)   # code between fences, blank lines and all
      | <!--.*?(?:-->|\Z)
      | (?P<paragraph>\S.*?)(?=\n[ \t]*\n|\n[ \t]*(?:```|~~~|[-*+][ ]|\d{1,2}[.)][ ])|\Z)
    )""",
    re.DOTALL | re.MULTILINE | re.VERBOSE,
)
_END = re.compile(r"[.!?][\"')\]`*]*(?=\s|\Z)")
_NEXT = re.compile(r"\s*\S")
_ABBREVIATION = re.compile(r"(?:\b(?i:e\.g|i\.e|etc|vs|cf|resp|approx|incl|fig|sec|no|mr|dr|st|al)|\b[A-Z])\.$")
_RULE = re.compile(r"\s*([^\w\s])\1{2,}\s*$")
_SIGNATURE = re.compile(
    r"(?:class |def |async def )?[\w.]+(?:\(.*\))?(?:\s*(?:->|=>)\s*.*)?$|.{0,120}\)\s*-+>\s", re.DOTALL
)
_NOT_PROSE = re.compile(r"\s{2,}|>|\.\. |\.\.\.|[-+*•|#<$:=~\[{}/\\]|\d+[.)]\s|@\w|.*::=|.*\S {4,}\S", re.DOTALL)

_ROLE = re.compile(r":[\w:+-]+:`~?([^`<]+?)(?:\s*<[^`]*>)?`")
_LINK = re.compile(r"!?\[([^\[\]]*)\](?:\([^)]*\)|\[[^\]]*\])")
_EMPHASIS = re.compile(r"(?<![\w_])_([^_\s][^_]*)_(?![\w_])")
_MARKS = re.compile(r"`+|\*\*|(?<![\w*])\*(?=\w)|(?<=\w)\*(?![\w*])|\\(?=[_*\[\]<>])")
_WORD = re.compile(r"[A-Za-z][A-Za-z0-9_']*")

_FUNCTION_WORDS = """
a about above after all also an and any are as at be been before being below but by can cannot could do does each either
else for from had has have how if in into is it its itself may might more most must no not of off on one only or other
otherwise out over same shall should so some such than that the their them then there these they this those through to
too under until up use used uses using very was we were what when where whether which while who will with within without
would you your
"""
_DOCSTRING_WORDS = """
argument arguments attribute base call called calls class contain contains create false function get given gets helper
instance instances internal like list make method methods module name new none object objects optional parameter
parameters raise raises return returned returns see self set sets string takes true type value values
"""
_EMPTY_WORDS = frozenset((_FUNCTION_WORDS + _DOCSTRING_WORDS).split())


def first_sentence(text: str, start: int, end: int) -> tuple[int, int] | None:
    """Span of the first sentence of prose in `text[start:end]`; None where there is none.

    Headings' underlines, repeated signatures, code, comments, lists and tables above it are passed over.
    """
    for at, stop in _paragraphs(text, start, end):
        paragraph = text[at:stop]
        indent = at - text.rfind("\n", 0, at) - 1
        if _RULE.match(paragraph) or _SIGNATURE.match(paragraph) or indent >= _CODE_INDENT:
            continue
        if not _NOT_PROSE.match(paragraph.partition("\n")[0]):
            return at, _sentence_end(text, at, stop)
    return None


def sentences(text: str) -> Iterator[str]:
    """All sentences, normalised for comparison (see `normal`)."""
    for at, end in _paragraphs(text, 0, len(text)):
        while at < end:
            after = _sentence_end(text, at, end)
            if sentence := normal(text[at:after]):
                yield sentence
            at = after


def plain(sentence: str) -> str:
    """The sentence as a person would type it: one line, without reST roles, links' targets and emphasis marks."""
    text = _EMPHASIS.sub(r"\1", _LINK.sub(r"\1", _ROLE.sub(r"\1", sentence)))
    return " ".join(_MARKS.sub("", text).split()).rstrip(":")


def normal(text: str) -> str:
    """Lower-case words only: two sentences that differ in markup or line breaks become equal."""
    return " ".join(re.findall(r"\w+", text.lower()))


def why_no_question(question: str, rest: str) -> str | None:
    """Why this sentence does not do as a question about `rest`, the text around it; None when it does."""
    if len(question) < SHORTEST:
        return "sentence too short"
    if len(question) > LONGEST:
        return "sentence too long"
    words = {word.lower() for word in _WORD.findall(question) if len(word) > 1}
    if len(words - _EMPTY_WORDS) < _CONTENT_WORDS:
        return "too few words of its own"
    if sum(map(str.isalnum, rest)) < _ROOM_LEFT:
        return "nothing left to find"
    return None


def _paragraphs(text: str, start: int, end: int) -> Iterator[tuple[int, int]]:
    for match in _BLOCK.finditer(text, start, end):
        if match["paragraph"]:
            at = match.start("paragraph")
            yield at, at + len(match["paragraph"].rstrip())


def _sentence_end(text: str, start: int, end: int) -> int:
    """Where the sentence that begins at `start` ends; `end` is the end of its paragraph."""
    for match in _END.finditer(text, start, end):
        following = _NEXT.match(text, match.end(), end)
        if following and following.group()[-1].islower():
            continue
        if not _ABBREVIATION.search(text[max(start, match.start() - 10) : match.start() + 1]):
            return match.end()
    return end
