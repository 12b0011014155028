"""Sentences of a document that read as if they were told to a language model: instructions hidden in data.

Rules over words, not a model: each is a family of phrases that writers of documents have little reason to use and
writers of injections do (Greshake et al., arXiv 2302.12173; Yi et al., BIPIA, arXiv 2312.14197). Text is folded before
it is looked at, so that invisible characters, full-width letters and look-alikes of other alphabets hide nothing.

What this cannot see: a request that any page might hold ("Explain photosynthesis."). Such text stays harmless because
of what is done with answers, which rest on checked quotations; and a page *about* injections is found, too. A finding
is a reason not to quote a sentence and to tell a person, not a proof.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Final

from windlass.core.protocols import Finding

_PARTS: Final[Mapping[str, str]] = {
    # the beginning of a sentence, and words that an order may follow in the middle of one
    "first": r"(?:^|[.!?:;\n]\s*)",
    "order": r"(?:^|[.!?:;\n\"'(]\s*|\b(?:please|must|should|to|and|then|also|now|immediately)\s+)",
    # whatever follows within the sentence: the points of an address do not end it
    "on": r"(?:[^.!?\n]|[.!?](?=\S)){0,160}?",
    "few": r"(?:\w+\s+){0,4}?",
    "reply": r"(?:\w+\s+){0,2}?(?:answers?|responses?|repl(?:y|ies)|outputs?|summar(?:y|ies)|completions?|messages?)",
    "change": (
        r"(?:add|alter|anagram|append|augment|begin|blend|change|combine|convert|embed|encode|end|enhance|enrich|finish"
        r"|form|format|generate|give|group|include|incorporate|inject|insert|integrate|introduce|jumble|mention|merge"
        r"|misspell|modify|prefix|prepend|provide|put|rearrange|remove|render|replace|reverse|rewrite|scramble|send"
        r"|spell|start|substitute|translate|use|weave|write)"
    ),
    "forget": (
        r"(?:ignore|disregard|forget|override|bypass|neglect|stop following|do not (?:follow|obey)|pay no attention to)"
    ),
    "earlier": (
        r"(?:previous|prior|above|earlier|preceding|foregoing|former|existing|original|initial|other|system|safety"
        r"|your)"
    ),
    "orders": (
        r"(?:instructions?|prompts?|rules?|directions?|directives?|guidelines?|commands?|context|constraints?|tasks?)"
    ),
    "anweisung": r"(?:anweisung|instruc|instruk|consigne|instrucc|istruzion)\w*",
    "machine": r"(?:a\.?i\.?|llms?|language models?|chat\s?bots?|chatgpt|gpt-?\d?|claude|gemini|copilot)",
    "code": r"(?:following|subsequent|below) code (?:block|snippet|excerpt|section)s?\b",
    "secret": (
        r"(?:system prompts?|your (?:instructions|prompt|rules)|api keys?|access tokens?|credentials|chat history"
        r"|conversation (?:history|so far)|user'?s (?:data|e-?mails?|passwords?|messages))"
    ),
}

_FAMILIES: Final[Mapping[str, Sequence[str]]] = {
    "an order to forget its instructions": (
        r"\b<forget> <few><earlier> <few><orders>\b",
        r"\b(?:ignor(?:iere?|e[rz]|a|e (?:les|toutes|tes|vos))|vergiss|oublie[zr]?|olvida|dimentica|negeer)"
        r" (?:\S+ ){0,4}?<anweisung>",
    ),
    "a new role or order for it": (
        r"\byou are now (?:an?|the|in|no longer)\b",
        r"\bfrom now on,? you\b",
        r"\bpretend (?:that )?(?:to be|you)\b",
        r"\bact as (?:if you|an? (?:\w+ ){0,2}(?:assistant|bot|model|admin\w*|root))",
        r"\b(?:new|updated|real|actual|secret|hidden|special|urgent) (?:system )?(?:instructions?|orders|directives?)"
        r"(?:\s*:| for (?:you|the (?:assistant|model|ai)))",
        r"\bsystem (?:prompt|message|override|instructions?)\s*:",
        r"\b(?:jailbreak|developer|dan|god) mode\b",
    ),
    "a mark of a conversation": (
        r"<\|?\s*/?\s*(?:im_start|im_end|im_sep|system|user|assistant|endoftext|eot_id|start_header_id|end_header_id"
        r"|begin_of_text|start_of_turn|end_of_turn)\s*\|?>",
        r"\[/?inst\]|<</?sys>>|<<\s*(?:end|passage)\b[^>]{0,40}>>|</?tool_(?:call|response)>",
        r"(?:^|\n)\s*(?:#{2,}\s*)?(?:system|assistant)\s*:",
        r"\{\s*\"(?:name|tool|function)\"\s*:\s*\"\w+\"\s*,\s*\"(?:arguments|parameters|input)\"\s*:",
    ),
    "an order about the answer": (
        r"<order><change>\b<on>\b(?:in|to|into|of|from|with|at|as|for|on)"
        r" (?:the (?:end|start|beginning|top|body) of )?your <reply>\b",
        r"<first><change> (?:all of |every |the \w+ of )?your <reply>\b",
        r"<first>in your <reply>,",
        r"\b(?:reply|replies|respond|answer|output|say|print) (?:only|just|exactly|solely|instead|always)"
        r" (?:with\b|\S*[\"“:])",
        r"<first>(?:reply|respond|answer) (?:with|in)(?:\s*(?::|[\"“])| the (?:words?|phrase|text))",
        r"\bwhen(?:ever)? (?:you (?:are )?)?(?:answer|respond|repl(?:y|ies)|summari[sz])\w*\b<on>"
        r"\b(?:always|must|include|mention|say)\b",
        r"\bthe (?:correct|right|true|only) answer to (?:every|any|all|the user)",
    ),
    "words to a language model": (
        r"\b(?:dear|hey|hello|attention),? (?:any |all )?(?:<machine>|assistants?|agents?)\s*[:,]",
        r"\b(?:note|message|instructions?|important) (?:to|for) (?:the |any |all )?"
        r"(?:<machine>|assistants?|agents?)\s*:",
        r"\bif you are (?:an? |the )?(?:<machine>|(?:virtual|digital|automated) assistant)\b",
        r"\bas an? <machine>,? you\b",
        r"\b<machine>s?\s*[:,]? (?:should now|shall|please)\b",
        r"\b(?:the|this) assistant (?:must|should|shall)\b",
    ),
    "an order to hide, reveal or send something": (
        r"\bdo(?:n[o']t| not) (?:tell|inform|alert|warn|notify|(?:mention|reveal) (?:this|it)|show this) <few>"
        r"(?:users?|humans?|anyone|customers?|people)\b",
        r"\b(?:reveal|print|repeat|output|show|leak|send|share|forward|display) <few><secret>\b",
        r"!\[[^\]]*\]\(\s*https?://[^)\s]*[?&][^)\s]*=[^)\s]*[{\[<$%][^)]*\)",
    ),
    "an order to use a tool": (
        r"(?:<first>|\b(?:please|now|immediately) )(?:call|invoke|execute|trigger) (?:the |your |a )?"
        r"[`'\"]?[\w.-]+[`'\"]? (?:tool|function|plugin|connector)\b",
    ),
    "code to be put into an answer": (
        r"<first><on>\b<code><on>\b(?:in|into|to|with|of) your\b",
        r"<first><on>\byour (?:code(?:base)?|solution|implementation|algorithm|response)\b<on>\b<code>",
    ),
}
"""What is found, by what it is called. A space is any white space, `<name>` one of the parts above."""


def _compiled(phrases: Sequence[str]) -> re.Pattern[str]:
    pattern = re.sub(r"<([a-z]+)>", lambda match: _PARTS.get(match[1], match[0]), "|".join(phrases))
    return re.compile(pattern.replace(" ", r"\s+"), re.IGNORECASE)


_RULES: Final = {kind: _compiled(phrases) for kind, phrases in _FAMILIES.items()}
_TAGS: Final = re.compile("[\U000e0020-\U000e007f]{3,}")
"""Letters that no screen shows (Unicode's tags), and models read."""
_ALIKE: Final = str.maketrans("асеорхуіѕјԁһԛԝАВЕІЈЅКМНОРСТХαοικνρτυχ", "aceopxyisjdhqwABEIJSKMHOPCTXaoiknptux")
_END: Final = re.compile(r"[.!?。！？](?=\s|$|[\"'”’)])[\"'”’)]*|\n")


def scan(text: str) -> list[Finding]:
    """What in `text` reads like words to a model: whole sentences with their places, in order, none overlapping."""
    folded, places = _folded(text)
    found = [(match.start(), match.end(), kind) for kind, rule in _RULES.items() for match in rule.finditer(folded)]
    spans = [(*_sentence(folded, start, end), kind) for start, end, kind in found]
    findings = [Finding(places[start], places[end - 1] + 1, kind) for start, end, kind in spans if end > start]
    findings += [Finding(m.start(), m.end(), "letters that cannot be seen") for m in _TAGS.finditer(text)]
    return _apart(findings)


def _folded(text: str) -> tuple[str, Sequence[int]]:
    """The text as a model reads it, and where each of its characters stands in the original."""
    if text.isascii():
        return text, range(len(text))
    out: list[str] = []
    places: list[int] = []
    for at, char in enumerate(text):
        code = ord(char)
        if 0xE0020 <= code <= 0xE007F:  # tags are ASCII, moved
            plain = chr(code - 0xE0000)
        elif char != "\n" and unicodedata.category(char) == "Cf":
            continue
        else:
            plain = unicodedata.normalize("NFKC", char).translate(_ALIKE)
        out.append(plain)
        places.extend([at] * len(plain))
    return "".join(out), places


def _sentence(text: str, start: int, end: int) -> tuple[int, int]:
    """The span grown to whole sentences, or to the lines it stands in."""
    while start < end and (text[start].isspace() or (text[start] in ".!?:;" and text[start : start + 2] != "![")):
        start += 1
    before = [match.end() for match in _END.finditer(text, max(0, start - 600), start)]
    first = before[-1] if before else max(0, start - 600)
    after = _END.search(text, max(start, end - 1))
    last = after.end() if after else len(text)
    while first < start and text[first].isspace():
        first += 1
    while last > end and text[last - 1].isspace():
        last -= 1
    return first, last


def _apart(findings: Sequence[Finding]) -> list[Finding]:
    """Findings that overlap become one, which is called as the first of them."""
    merged: list[Finding] = []
    for one in sorted(findings, key=lambda one: (one.start, one.end)):
        if merged and one.start < merged[-1].end:
            last = merged[-1]
            merged[-1] = Finding(last.start, max(last.end, one.end), last.kind)
        else:
            merged.append(one)
    return merged
