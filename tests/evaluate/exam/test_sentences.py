"""First sentences: found in docstrings and sections, cleaned, and refused where they identify nothing."""

from __future__ import annotations

import pytest

from windlass.evaluate.exam.sentences import first_sentence, normal, plain, sentences, why_no_question


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Serialize obj to JSON.  If skipkeys is true, ...", "Serialize obj to JSON."),
        ("Wrapped over\ntwo lines. Next.", "Wrapped over\ntwo lines."),
        ("Uses e.g. commas, i.e. Python 3.11 files. Then more.", "Uses e.g. commas, i.e. Python 3.11 files."),
        ("No full stop at all\n\nNext paragraph.", "No full stop at all"),
        ("bytes(x) -> bytes object\n\nBuild bytes from x. More.", "Build bytes from x."),
        ("====\n\nBelow a rule. More.", "Below a rule."),
        ("Is it 'quoted.' Yes.", "Is it 'quoted.'"),
        ("Calls os.path.join twice. More.", "Calls os.path.join twice."),
        ("Ends before a list\n- of things", "Ends before a list"),
        ("- a list\n- of things\n\nThen prose. More.", "Then prose."),
        ("    indented code\n\nProse here.", "Prose here."),
        ("```sh\nrun. this\n\n# That\n```\nProse here. More.", "Prose here."),
        ("Run this:\n```\ncode. More code.\n```", "Run this:"),
        ("<!-- added: v1\n\nNot. This. -->\n\nProse here.", "Prose here."),
        ("```\nnever closed\n\nProse.", None),
        ("- a list\n- of things", None),
        ("> a quotation", None),
        (">>> doctest()\n'x'", None),
        ("| a | table |\n|---|---|", None),
        ("", None),
        ("\n\n", None),
    ],
)
def test_first_sentence(text: str, expected: str | None) -> None:
    span = first_sentence(text, 0, len(text))
    assert (None if span is None else text[slice(*span)]) == expected


def test_the_span_lies_in_the_part_that_was_asked_about() -> None:
    text = "# One\nFirst of one. More.\n\n# Two\nFirst of two. More."
    start = text.index("First of two")
    assert first_sentence(text, start, len(text)) == (start, start + len("First of two."))


def test_plain_is_what_a_person_would_type() -> None:
    written = "Run :func:`~asyncio.run` or the ``__main__`` *entry\n point* of [this tool](https://x.org/a), see:"
    assert plain(written) == "Run asyncio.run or the __main__ entry point of this tool, see"


def test_plain_knows_markdown_and_leaves_names_alone() -> None:
    assert plain("An _abstract_ [stream][], see [here][x-1] or snake_case_name and my\\_file.") == (
        "An abstract stream, see here or snake_case_name and my_file."
    )


def test_sentences_of_a_text_are_normalised() -> None:
    assert list(sentences("One *is* here. Two\nis there!\n\nThree")) == ["one is here", "two is there", "three"]
    assert normal("``A``  b\nC.") == "a b c"


REST = "Here is what remains of the passage around the question, long enough to be found."


@pytest.mark.parametrize(
    ("question", "rest", "reason"),
    [
        ("Return the line number in the current file.", REST, None),
        ("Too short.", REST, "sentence too short"),
        ("word " * 60, REST, "sentence too long"),
        ("Return true if the given object is a new instance.", REST, "too few words of its own"),
        ("Return the line number in the current file.", "(self)", "nothing left to find"),
    ],
)
def test_why_no_question(question: str, rest: str, reason: str | None) -> None:
    assert why_no_question(question, rest) == reason


def test_an_endless_paragraph_takes_linear_time() -> None:
    """2 MB without a blank line: a quadratic splitter would need minutes for it."""
    text = "The quick brown fox jumps over the lazy dog again. " * 40_000
    assert sum(1 for _ in sentences(text)) == 40_000
    assert first_sentence(text, 0, len(text)) == (0, 50)
