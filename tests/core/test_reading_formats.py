"""Headings, HTML and Python: what is found, and that every offset points at what it claims."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from windlass.core.documents import Section
from windlass.core.readers.headings import markdown_sections, rst_sections, split_front_matter
from windlass.core.readers.html import read_html
from windlass.core.readers.python_source import docstring_document, documented, parse, source_document
from windlass.core.readers.text import canonical

MARKS = [
    "# A",
    "## B ##",
    "Title",
    "===",
    "---",
    "```",
    "~~~",
    "    code",
    "- item",
    "",
    "text here",
    "***",
    "####",
    "#x",
]


def found(text: str, sections: list[Section]) -> bool:
    lines = [text[s.start :].split("\n", 1)[0] for s in sections]
    return all(s.heading and s.heading in line for s, line in zip(sections, lines, strict=True))


@given(st.lists(st.sampled_from(MARKS), max_size=25).map("\n".join))
def test_every_heading_is_found_at_its_offset(text: str) -> None:
    text = canonical(text)
    for sections in (markdown_sections(text), rst_sections(text)):
        assert found(text, sections)
        starts = [s.start for s in sections]
        assert starts == sorted(set(starts))
        assert all(s.start == 0 or text[s.start - 1] == "\n" for s in sections)


def test_markdown_headings() -> None:
    text = """\
# One #

Two
---

```python
# a comment
```

- item
---

   ### Three [link](x)
    # code
#hash tag
"""
    assert [(s.level, s.heading) for s in markdown_sections(text)] == [(1, "One"), (2, "Two"), (3, "Three [link](x)")]


def test_front_matter_is_not_text() -> None:
    assert split_front_matter('---\ntitle: "A page"\ndate: 1\n---\n\nBody') == ("A page", "Body")
    assert split_front_matter("---\nno front matter\n---\nBody") == ("", "---\nno front matter\n---\nBody")


def test_rst_headings_and_what_only_looks_like_one() -> None:
    text = """\
=====
Title
=====

Part
----

=====  =====
table  table
=====  =====

Sub
~~~

A longer line of text
---

Another
-------
"""
    assert [(s.level, s.heading) for s in rst_sections(text)] == [(1, "Title"), (2, "Part"), (3, "Sub"), (2, "Another")]


HTML = """<!doctype html><html><head><title>The  page</title><style>p {}</style>
<script>var x = "<p>no</p>";</script></head>
<body><nav><a href=x>Home</a></nav><h1>Top &amp; more</h1><p>First <b>bold</b>
text.<br>Line</p><ul><li>one<li><p>two</p></ul><pre>def f():
    return 1</pre><table><tr><th>a<th>b</tr><tr><td>1<td>2</table><h2>Sub<br>head</h2>tail</body></html>"""


def test_html_becomes_text_with_headings() -> None:
    title, text, sections = read_html(HTML)
    assert title == "The page"
    assert text == (
        "Top & more\n\nFirst bold text.\n\nLine\n\n- one\n- two\n\ndef f():\n    return 1\n\na | b\n1 | 2\n\n"
        "Sub head\n\ntail"
    )
    assert [(s.level, s.heading) for s in sections] == [(1, "Top & more"), (2, "Sub head")]
    assert found(text, sections)


def test_an_unclosed_nav_does_not_swallow_the_page() -> None:
    assert "the text" in read_html("<nav><a>Home</a><h1>Page</h1><p>the text")[1]


TAGS = [
    "<h1>",
    "</h1>",
    "<p>",
    "<li>",
    "<pre>",
    "</pre>",
    "<nav>",
    "</nav>",
    "<table>",
    "<tr>",
    "<td>",
    "</table>",
    "<br>",
]


@given(st.lists(st.sampled_from(TAGS) | st.text(max_size=8), max_size=25).map("".join))
def test_any_html_gives_canonical_text_and_valid_offsets(html: str) -> None:
    _, text, sections = read_html(html)
    assert canonical(text) == text
    assert found(text, sections)


SOURCE = '''\
"""A module.

More about it.
"""

import sys

if sys.platform == "win32":
    def where():
        """On Windows."""
else:
    def where():
        """Elsewhere."""


class Thing(Base):
    """A thing.

    Notes
    -----
    It has notes.
    """

    def __init__(self, size: int = 3, *rest, flag=False, **more):
        """Made with a size."""

    @property
    def area(self) -> float:
        """The area of it."""

    @staticmethod
    def make(a, /, b, *, c=None):
        """Makes one."""

    async def run(self, table={1: 111111111111, 2: 22222222222222, 3: 333333333333333, 4: 4}):
        """Runs."""

    def _hidden(self):
        """Not shown."""


def undocumented(): ...
'''


def test_python_definitions_become_pages() -> None:
    items = {item.qualname: item for item in documented(parse(SOURCE))}
    assert list(items) == ["", "where", "Thing", "Thing.area", "Thing.make", "Thing.run"]
    assert items["where"].docstring == "On Windows."  # the first of a name
    assert items["Thing"].signature == "class Thing(size: int = 3, *rest, flag=False, **more)"
    assert items["Thing"].docstring.endswith("Made with a size.")
    assert items["Thing.area"].signature == "Thing.area"
    assert items["Thing.make"].signature == "Thing.make(a, /, b, *, c=None)"
    assert items["Thing.run"].signature == "async Thing.run(table=...)"


def test_a_page_is_signature_blank_line_docstring() -> None:
    items = {item.qualname: item for item in documented(parse(SOURCE))}
    page = docstring_document(items["Thing"], "pkg.mod", source="mod.py#Thing", cluster="mod.py")
    head, body = page.text[: page.metadata["body"]], page.text[page.metadata["body"] :]
    assert head == "class pkg.mod.Thing(size: int = 3, *rest, flag=False, **more)\n\n"
    assert body.startswith("A thing.\n\nNotes\n-----\n")
    assert page.title == "pkg.mod.Thing" and page.metadata["qualname"] == "Thing"
    assert [(s.level, s.heading) for s in page.sections] == [(1, "pkg.mod.Thing"), (2, "Notes")]
    assert found(page.text, list(page.sections))


def test_sections_of_source_are_its_definitions() -> None:
    text = canonical(SOURCE)
    document = source_document(text, parse(text), "mod.py", "mod")
    names = [(s.level, s.heading) for s in document.sections]
    assert names[:4] == [(1, "where"), (1, "where"), (1, "Thing"), (2, "__init__")] and names[-1] == (1, "undocumented")
    assert found(text, list(document.sections))
