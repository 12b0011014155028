"""The lineage of one generated token: its model and run, and where the words before it stand in the training text."""

from __future__ import annotations

from collections.abc import Sequence

from windlass.core import semconv
from windlass.core.artifacts import Artifact
from windlass.core.errors import InputError, MissingExtra
from windlass.core.records import SpanRecord
from windlass.core.workspace import Workspace
from windlass.loop.lineage.graph import GraphBuilder, LineageGraph
from windlass.loop.lineage.spans import answered, asked
from windlass.loop.lineage.verbatim import TrainingText, Verbatim
from windlass.loop.text import shortened

PLACES = 5
"""Places shown of those where the matched text stands."""


def token_lineage(ws: Workspace, spans: Sequence[SpanRecord], token: int) -> LineageGraph:
    """The graph of token number `token` (from 0) of the text that a model of this workspace wrote.

    The tokens are those into which the model's tokenizer cuts the text that was stored, which is the text that was
    served. Raises `InputError` when no such model wrote, or it wrote fewer tokens.
    """
    span, model = _written_by(ws, spans)
    prompt, text = asked(span), answered(span)
    pieces = token_spans(model, text)
    if not 0 <= token < len(pieces):
        raise InputError(
            f"Trace {span.trace_id} has {len(pieces)} generated tokens, numbered from 0; there is no token {token}.",
            f"Ask for one from 0 to {len(pieces) - 1}." if pieces else "The model wrote nothing.",
        )
    start, end = pieces[token]
    found = training_text(ws, model).longest_suffix(prompt + text[:end], limit=PLACES)
    builder = GraphBuilder(ws)
    root = builder.add(
        f"{span.trace_id}#{token}",
        "token",
        f"{text[start:end]!r}, token {token} of {len(pieces)}",
        trace=span.trace_id,
        context=shortened((prompt + text[:start])[-200:], 200),
    )
    builder.edge(root, builder.artifact(model.digest), "written by")
    _add_places(builder, root, model, found)
    return builder.graph(root)


def _written_by(ws: Workspace, spans: Sequence[SpanRecord]) -> tuple[SpanRecord, Artifact]:
    for span in spans:
        digest = span.attributes.get(semconv.MODEL_DIGEST)
        if span.operation in ("chat", "text_completion") and isinstance(digest, str):
            model = ws.artifacts.find(digest)
            if model is not None and model.kind == "model":
                return span, model
    raise InputError(
        f"No model of this workspace wrote in trace {spans[0].trace_id}: its answer quotes documents.",
        "Leave out --token to see which documents.",
    )


def token_spans(model: Artifact, text: str) -> list[tuple[int, int]]:
    """(start, end) of every token of `text`, in characters, by the tokenizer of the model."""
    try:
        from tokenizers import Tokenizer
    except ImportError as error:
        raise MissingExtra("The lineage of a token", "build") from error
    tokenizer = Tokenizer.from_file(str(model.path / "tokenizer.json"))
    return [(start, end) for start, end in tokenizer.encode(text, add_special_tokens=False).offsets]


def training_text(ws: Workspace, model: Artifact) -> TrainingText:
    """The documents that the model was trained on, as its pre-training read them."""
    from windlass.build.corpus import training_documents

    run = ws.store.run(model.record.run) if model.record.run else None
    kinds = run.config.get("settings", {}).get("kinds") if run else None
    corpus = ws.artifacts.get(model.parent("corpus"))
    return TrainingText(list(training_documents(corpus, "train", kinds)))


def _add_places(builder: GraphBuilder, root: str, model: Artifact, found: Verbatim) -> None:
    corpus = model.parent("corpus")
    for place in found.occurrences:
        document = builder.document(corpus, place.document.id)
        node = builder.add(
            f"place:{place.document.id}:{place.start}",
            "verbatim",
            f"{place.document.title}, characters {place.start}-{place.end}",
            matched=found.text,
            length=len(found.text),
            occurrences=f"{found.total:,} in the training text",
        )
        builder.edge(root, node, "longest context read in training")
        builder.edge(node, document, "from")
    if not found.occurrences:
        builder.edge(root, builder.add("place:none", "verbatim", "no character of it is in the training text"), "read")
