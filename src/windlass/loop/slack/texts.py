"""Between what Slack shows and what a model reads and writes. Pure functions; nothing here talks to Slack.

Slack writes text in a form of its own ("mrkdwn"): `&`, `<` and `>` are escaped, and what stands between angle brackets
is a mention or a link. What a model wrote is escaped whole, so that no answer, and no document that one quotes, can
mention a person or a channel, or hide an address behind other words.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote

from windlass.apply.rag.answers import places
from windlass.apply.rag.answers.showing import sources
from windlass.core.values import ChatResponse, Citation

UP, DOWN, BETTER = "windlass_up", "windlass_down", "windlass_better"
"""What the buttons and the form under an answer are called."""
ANSWER = "windlass_answer"
"""Event type of the metadata by which an answer is known to belong to its question."""

_SECTION = 3000
"""Characters that Slack takes in one section, and 50 of them in a message."""
_SHOWN = 40
_QUOTE = 200
"""Characters of a quotation shown under an answer."""

_ENTITY = re.compile(r"<([^<>]*)>")
_BOLD = re.compile(r"\*\*(?=\S)([^*\n]+?)(?<=\S)\*\*")


def read(text: str, bot: str) -> str:
    """What a person wrote, as plain text: without mentions of the bot, links as their label and address."""

    def plain(match: re.Match[str]) -> str:
        inside, _, label = match[1].partition("|")
        if inside == f"@{bot}":
            return ""
        if inside[:1] in ("@", "#", "!"):
            return label or inside
        return f"{label} ({inside})" if label and label != inside else inside.removeprefix("mailto:")

    text = _ENTITY.sub(plain, text)
    return text.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&").strip()


def escaped(text: str) -> str:
    """`text` to be shown as it stands."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def written(text: str) -> str:
    """What a model wrote, as Slack shows it: escaped, with Markdown's bold and headings."""
    lines = [re.sub(r"^#{1,6} +(.+?) *#*$", r"**\1**", line) for line in text.split("\n")]
    return _BOLD.sub(r"*\1*", escaped("\n".join(lines)))


def address(citation: Citation, link: str | None) -> str | None:
    """Where a reader finds what is cited: its own address, or `link` with {source} and the like filled in."""
    if citation.url:
        found = places.link(citation)
    elif citation.source.startswith(("https://", "http://")):
        found = citation.source
    elif link:
        values = {"source": citation.source or citation.document, "document": citation.document}
        filled = {name: quote(value, safe="/") for name, value in values.items()}
        found = link.format(**filled, start=citation.start, end=citation.end)
    else:
        return None
    return quote(found, safe="/:?#[]@!$&'()*+,;=%~-._")  # no angle bracket or bar may end the link early


def cited(number: int, citation: Citation, link: str | None) -> str:
    """One line under an answer."""
    place = " > ".join(dict.fromkeys(part for part in (citation.title, citation.heading, citation.place) if part))
    name = escaped(place or citation.source or citation.document).replace("|", "¦")
    found = address(citation, link)
    shown = f"<{found}|{name}>" if found else f"{name} (`{escaped(citation.source or citation.document)}`)"
    words = " ".join(citation.quote.split())
    words = words if len(words) <= _QUOTE else words[: _QUOTE - 2].rstrip() + " …"
    return f"[{number}] {shown}\n> {escaped(words)}"


def answer_blocks(response: ChatResponse, link: str | None) -> list[dict[str, Any]]:
    """The message: the answer, its sources, and two buttons where the answer has a trace to score."""
    text = response.message.text
    if response.citations:
        text = text.removesuffix(sources(response.citations)).rstrip()
    parts = _pieces(written(text))
    blocks = [_section(part) for part in parts[:_SHOWN]]
    if len(parts) > _SHOWN:
        blocks.append(_section("_The answer is longer than Slack shows; the rest is on its trace._"))
    warnings = [escaped(one)[: _SECTION - 20] for one in response.warnings if one not in text]
    blocks += [_section(f":warning: {warning}") for warning in warnings[:3]]
    if response.citations:
        lines = [cited(number, citation, link) for number, citation in enumerate(response.citations, start=1)]
        blocks.append({"type": "divider"})
        blocks += [_section(line[:_SECTION]) for line in lines[: 46 - len(blocks)]]
    if response.trace_id:
        blocks.append(_buttons(response.trace_id))
    return blocks


def thanked_blocks(blocks: Sequence[Mapping[str, Any]], good: bool, user: str) -> list[dict[str, Any]]:
    """The same message once it was scored: who said what stands above the buttons, which stay for others."""
    line = f"{'👍' if good else '👎'} <@{user}>"
    kept = [dict(block) for block in blocks]
    said = next((block for block in kept if block.get("block_id") == "windlass_said"), None)
    if said is None:
        said = {"type": "context", "block_id": "windlass_said", "elements": [{"type": "mrkdwn", "text": ""}]}
        kept.insert(max(len(kept) - 1, 0), said)
    before = [one for one in said["elements"][0]["text"].split("   ") if one and not one.endswith(f"<@{user}>")]
    said["elements"] = [{"type": "mrkdwn", "text": "   ".join([*before, line])[-_SECTION:]}]
    return kept


def better_form(trace: str) -> dict[str, Any]:
    """The form that asks what a good answer would have been."""
    return {
        "type": "modal",
        "callback_id": BETTER,
        "private_metadata": trace,
        "title": {"type": "plain_text", "text": "What would be better?"},
        "submit": {"type": "plain_text", "text": "Send"},
        "close": {"type": "plain_text", "text": "Skip"},
        "blocks": [
            _field("answer", "What should have been answered?"),
            _field("comment", "What is wrong with the answer?"),
        ],
    }


def form_values(view: Mapping[str, Any]) -> dict[str, str]:
    """What was written into `better_form`, by field."""
    values = view.get("state", {}).get("values", {})
    return {name: str((values.get(name, {}).get("text", {}) or {}).get("value") or "").strip() for name in values}


def _section(text: str) -> dict[str, Any]:
    return {"type": "section", "text": {"type": "mrkdwn", "text": text, "verbatim": True}}


def _buttons(trace: str) -> dict[str, Any]:
    def button(action: str, text: str) -> dict[str, Any]:
        label = {"type": "plain_text", "text": text, "emoji": True}
        return {"type": "button", "action_id": action, "text": label, "value": trace}

    return {"type": "actions", "elements": [button(UP, "👍 Helpful"), button(DOWN, "👎 Not helpful")]}


def _field(name: str, label: str) -> dict[str, Any]:
    return {
        "type": "input",
        "block_id": name,
        "optional": True,
        "label": {"type": "plain_text", "text": label},
        "element": {"type": "plain_text_input", "action_id": "text", "multiline": True, "max_length": 3000},
    }


def _pieces(text: str) -> list[str]:
    """`text` in parts of at most a section, cut between lines where there are any, else between words."""
    pieces: list[str] = []
    while len(text) > _SECTION:
        cut = max(text.rfind("\n", 0, _SECTION), 0) or max(text.rfind(" ", 0, _SECTION), 0) or _SECTION
        amp = text.rfind("&", max(cut - 5, 0), cut)
        if amp > 0 and ";" not in text[amp:cut] and ";" in text[amp : amp + 6]:
            cut = amp  # not through an escaped character
        pieces.append(text[:cut])
        text = text[cut:].lstrip("\n ")
    return [*pieces, text] if text.strip() else pieces or ["(empty)"]
