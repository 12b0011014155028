"""Pages and links of what is quoted."""

from __future__ import annotations

from windlass.apply.rag.answers.places import link, placed
from windlass.core.values import Citation

CITED = Citation("d", "", "", 120, 140, "nine litres a minute", "guide.pdf")


def test_a_citation_gets_its_page_and_an_address_that_a_browser_may_open() -> None:
    found = placed(CITED, {"pages": [0, 100], "url": "https://example.com/guide.pdf"})
    assert (found.place, link(found)) == ("page 2", "https://example.com/guide.pdf#page=2")
    slide = placed(CITED, {"slides": [0, 100]})
    assert (slide.place, link(slide)) == ("slide 2", "")
    web = placed(CITED, {"url": "https://example.com/a"})
    assert link(web) == "https://example.com/a#:~:text=nine%20litres%20a%20minute"
    assert link(placed(CITED, {})) == "" and placed(CITED, {"url": "javascript:alert(1)"}).url == ""
    from_web = Citation("d", "", "", 0, 4, "half-way", "https://example.com/b#there")
    assert link(placed(from_web, {})) == "https://example.com/b#there"
    assert link(placed(Citation("d", "", "", 0, 4, "half-way", "http://a.b/c"), {})).endswith("text=half%2Dway")
