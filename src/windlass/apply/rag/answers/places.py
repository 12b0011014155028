"""Where a person finds what is quoted: the page, and a link."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any
from urllib.parse import quote, urlsplit

from windlass.core.documents import place
from windlass.core.values import Citation

URL = "url"
"""Metadata of a document that can be opened somewhere."""
_LINKED = 8
"""Words of a quotation that a link to it names."""


def placed(citation: Citation, metadata: Mapping[str, Any]) -> Citation:
    """The citation with its page and address, as far as the metadata of its document know them."""
    return replace(citation, place=place(metadata, citation.start), url=_address(citation, metadata))


def link(citation: Citation) -> str:
    """Where the quotation can be seen: a PDF's page, a web page at the words themselves (WICG's text fragments); ""
    where the document has no address."""
    if not citation.url or "#" in citation.url:
        return citation.url
    kind, _, number = citation.place.partition(" ")
    if kind == "page":
        return f"{citation.url}#page={number}"
    words = " ".join(citation.quote.split()[:_LINKED])
    return f"{citation.url}#:~:text={quote(words, safe='').replace('-', '%2D')}"


def _address(citation: Citation, metadata: Mapping[str, Any]) -> str:
    """Only of the web: nothing that a document says of itself opens a file or runs a script."""
    for address in (metadata.get(URL), citation.source):
        if isinstance(address, str) and urlsplit(address).scheme in ("http", "https"):
            return address
    return ""
