"""The demo: the whole loop on real documents, from reading them to a release that measurably improved.

Nine stages, in the order of `Demo.stages`. What a stage finished is kept, so the same command goes on after Ctrl-C or
a crash, and a second run is quick. Every figure that is printed was measured in this workspace.
"""

from __future__ import annotations

import contextlib
import platform
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from windlass.apply.rag.index import build_index
from windlass.build.corpus import build_corpus, corpus_report, training_text
from windlass.build.tokenizer import train_tokenizer
from windlass.build.training.pretrain import pretrain
from windlass.build.training.settings import ModelSettings, PretrainSettings, RunSettings, ScheduleSettings
from windlass.core.artifacts import Artifact
from windlass.core.errors import MissingExtra
from windlass.core.files import exclusive, sha256_json
from windlass.core.progress import Progress
from windlass.core.protocols import Embedder
from windlass.core.readers import Folder, PythonDocs, Source
from windlass.core.tables import table
from windlass.core.values import ChatRequest, Message
from windlass.core.version import __version__
from windlass.core.workspace import Workspace
from windlass.evaluate.exam.deriving import derive_exam
from windlass.evaluate.exam.items import load_items
from windlass.evaluate.exam.results import report
from windlass.evaluate.exam.tables import render_report
from windlass.loop.assistants.assemble import TASK, cached, load_assistant, load_models
from windlass.loop.assistants.measure import measure
from windlass.loop.ledger import Ledger
from windlass.loop.lineage.following import lineage
from windlass.loop.lineage.tokens import token_spans
from windlass.loop.lineage.tree import render_tree
from windlass.loop.releasing.releases import live, promote
from windlass.loop.training.baselines import comparison
from windlass.loop.turning.candidate import Recipe, first_variant
from windlass.loop.turning.one_recipe import render_turn, turn
from windlass.loop.turning.users import simulate_users
from windlass.loop.waterfall import waterfall

if TYPE_CHECKING:
    from openai import OpenAI

LEAST_TEXT = 200_000
"""Bytes of training text below which a language model learns nothing worth showing."""
TOKEN = 8
"""Which of the generated tokens is followed back to its training text; the last one if there are fewer."""
NOT_IN_ANY_DOCUMENT = "What is the boiling point of mercury?"
PYTHON_QUESTIONS = (
    "How can I sort a list in place?",
    "How do I create a temporary directory?",
    NOT_IN_ANY_DOCUMENT,
)
PYTHON_PROMPT = "def main():\n    "


@dataclass(frozen=True, slots=True)
class DemoSettings:
    minutes: float = 2.9
    """Of training the language model."""
    vocabulary: int = 4096
    depth: int = 4
    users: int = 800
    """At most so many questions are asked by simulated users."""
    questions: Sequence[str] = ()
    """What to ask the assistant; empty: questions of its own exam."""
    prompt: str = ""
    """What the trained model continues; empty: the beginning of a held-out document."""
    seed: int = 0


class Demo:
    """The stages and what they share. `key` names the source's content: another content starts anew."""

    def __init__(
        self, ws: Workspace, source: Source, key: str, settings: DemoSettings, say: Callable[[str], object] = print
    ) -> None:
        self.ws = ws
        self.source = source
        self.settings = settings
        self.say = say
        self.ledger = Ledger(ws, f"demo:{key}")
        self._generated: str | None = None
        """Trace of what the trained model wrote."""
        self._written = ""

    @property
    def stages(self) -> Sequence[tuple[str, Callable[[], None]]]:
        return (
            ("Corpus: read, clean, deduplicate", self.show_corpus),
            ("Build: a tokenizer and a language model", self.show_model),
            ("Index: passages, vectors and words in one file", self.show_index),
            ("Serve, apply, observe: ask through the OpenAI API, and look at the trace", self.show_answers),
            ("Evaluate: an exam derived from the documents", self.show_exam),
            ("Turn: users' feedback becomes a better version, if the gate says so", self.show_turn),
            ("Lineage: from an answer and from a token back to the documents", self.show_lineage),
        )

    def run(self) -> None:
        """Runs every stage. Raises `WorkspaceBusy` when another process does so in this workspace."""
        with exclusive(self.ws.root / "demo.lock", "the demo"):
            begun = time.monotonic()
            for number, (title, stage) in enumerate(self.stages, start=1):
                started = time.monotonic()
                self.say(f"\n{number}  {title}\n")
                stage()
                self.say(f"\n   {time.monotonic() - started:,.1f} s")
            self.say(f"\nDone in {time.monotonic() - begun:,.0f} s. Everything is in {self.ws.root}.")
            self.say("Look at it with `windlass serve`; ask with `windlass ask`; undo with `windlass rollback`.")

    def _line(self, text: str) -> None:
        self.say("   " + text.replace("\n", "\n   "))

    def _again(self) -> str:
        return "" if self.ledger.fresh else "  (made by an earlier run)"

    # 1 ---------------------------------------------------------------------------------------------------------------

    @cached_property
    def corpus(self) -> Artifact:
        def make() -> Artifact:
            with Progress("read", None, "documents") as progress:
                return build_corpus(self.ws, self.source, progress=progress)

        return self.ledger.artifact("corpus", make)

    def show_corpus(self) -> None:
        found = corpus_report(self.corpus)
        self._line(f"{self.corpus.ref}{self._again()}: {found['source']}")
        rows = [
            [kind, f"{row['documents']:,}", f"{row['bytes'] / 1e6:,.2f} MB", f"{row['heldout_bytes'] / 1e6:,.2f} MB"]
            for kind, row in found["kept"].items()
        ]
        self._line(table(["kept", "documents", "text", "held out"], rows, right=(1, 2, 3)))
        drops = dict(found["dropped_by_reason"]) | dict(found["read"]["skipped_by_reason"])
        self._line("left out: " + (", ".join(f"{count:,} {reason}" for reason, count in drops.items()) or "nothing"))
        self._line(f"data card: {self.corpus.path / 'README.md'}")

    # 2 ---------------------------------------------------------------------------------------------------------------

    @cached_property
    def tokenizer(self) -> Artifact:
        return self.ledger.artifact(
            "tokenizer", lambda: train_tokenizer(self.ws, self.corpus, self.settings.vocabulary, allow_smaller=True)
        )

    @cached_property
    def model(self) -> Artifact | None:
        if self.corpus.card["train_bytes"] < LEAST_TEXT or not self.corpus.card["heldout_bytes"]:
            return None
        settings = PretrainSettings(
            model=ModelSettings(depth=self.settings.depth),
            schedule=ScheduleSettings(minutes=self.settings.minutes),
            run=RunSettings(seed=self.settings.seed),
        )
        return self.ledger.artifact(
            "model", lambda: pretrain(self.ws, self.corpus, self.tokenizer, settings, say=self._line)
        )

    def show_model(self) -> None:
        if self.model is None:
            size = self.corpus.card["train_bytes"]
            self._line(f"Only {size / 1e3:,.0f} kB of training text: too little for a language model of its own.")
            self._line(f"{LEAST_TEXT / 1e3:,.0f} kB would do. The assistant needs none and goes on without.")
            return
        card = self.model.card
        self._line(f"{self.model.ref}{self._again()}: {card['parameters']:,} parameters, {self.model.path}")
        self._line(comparison(self.ws, self.model) or "")

    # 3 ---------------------------------------------------------------------------------------------------------------

    @cached_property
    def embedder(self) -> Embedder:
        from windlass.serve.encoders.embedder import MiniLM

        return cached(self.ws, MiniLM.load(precision="bfloat16"))

    @cached_property
    def exam(self) -> Artifact:
        return self.ledger.artifact("exam", lambda: derive_exam(self.ws, self.corpus, seed=self.settings.seed))

    @cached_property
    def index(self) -> Artifact:
        kinds = set(corpus_report(self.corpus)["kept"]) - {"all"}
        prose = kinds - {"source"}  # source code is for the language model, unless there is nothing else
        return self.ledger.artifact(
            "index", lambda: build_index(self.ws, self.corpus, self.embedder, exam=self.exam, kinds=prose or kinds)
        )

    @cached_property
    def first(self) -> Artifact:
        return self.ledger.artifact("first", lambda: first_variant(self.ws, self.index, self.exam, self.embedder))

    def show_index(self) -> None:
        card = self.exam.card
        for warning in card["warnings"]:
            self._line(f"! {warning}")
        self._line(
            f"{self.exam.ref}: {card['items']:,} questions, first sentences of sections and docstrings, "
            "whose own text is kept out of the index"
        )
        index = self.index
        made = index.card
        self._line(f"{index.ref}{self._again()}: {made['passages']:,} passages of {made['documents']:,} documents")
        if live(self.ws, TASK) is None:
            promote(self.ws, TASK, self.first, None, "the first version")
        released = live(self.ws, TASK)
        assert released is not None
        self._line(f"{TASK} serves {self.ws.artifacts.get(released.variant).ref}")

    # 4 ---------------------------------------------------------------------------------------------------------------

    def show_answers(self) -> None:
        answers: list[dict[str, Any]] = []
        with self._client() as client:
            names = [model.id for model in client.models.list()]
            self._line(f"GET  /v1/models            {', '.join(names)}")
            if self.model is not None:
                self._line(f"POST /v1/chat/completions  {self.model.record.name}, streamed, which continues:\n")
                prompt = self._prompt()
                pieces = client.chat.completions.create(
                    model=self.model.record.name,
                    messages=[{"role": "user", "content": prompt}],
                    max_tokens=48,
                    seed=self.settings.seed,
                    temperature=0.7,
                    stream=True,
                )
                text = ""
                for piece in pieces:
                    text += piece.choices[0].delta.content or "" if piece.choices else ""
                    self._generated = _facts(piece).get("trace_id", self._generated)
                self._written = text
                self._line("  " + f"{prompt}{text}".replace("\n", "\n  ") + "\n")
            vectors = client.embeddings.create(model=self.embedder.name, input=["one", "two"])
            self._line(f"POST /v1/embeddings        2 texts, {len(vectors.data[0].embedding)} dimensions each")
            for question in self._questions():
                self._line(f"POST /v1/chat/completions  {TASK}\n\n  {question}\n")
                answer = client.chat.completions.create(model=TASK, messages=[{"role": "user", "content": question}])
                self._line("  " + (answer.choices[0].message.content or "").replace("\n", "\n  ") + "\n")
                answers.append(_facts(answer))
        self.ws.recorder.flush()
        shown = min(answers, key=lambda facts: bool(facts["abstained"]))  # rather an answer than an abstention
        spans = self.ws.store.trace(shown["trace_id"])
        self._line(f"trace {spans[0].trace_id}\n")
        self._line(waterfall(spans))

    @contextlib.contextmanager
    def _client(self) -> Iterator[OpenAI]:
        """The official client, talking to a server of ours on a free port."""
        try:
            from openai import OpenAI
        except ImportError as missing:
            raise MissingExtra("The demo speaks through the official openai client, and", "demo") from missing
        from windlass.serve.app import create_app
        from windlass.serve.run import ServerThread

        app = create_app(load_models(self.ws), {self.embedder.name: self.embedder}, self.ws.store, self.ws.recorder)
        with ServerThread(app) as server, OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as client:
            self._line(f"server on {server.url}")
            yield client

    def _prompt(self) -> str:
        first = next(iter(training_text(self.corpus, "heldout")))
        return self.settings.prompt or first[:60]

    def _questions(self) -> Sequence[str]:
        if self.settings.questions:
            return self.settings.questions
        asked = [item.question for item in load_items(self.exam, "dev") if item.answerable]
        return [*asked[:2], NOT_IN_ANY_DOCUMENT]

    # 5 ---------------------------------------------------------------------------------------------------------------

    def show_exam(self) -> None:
        items = load_items(self.exam, "test")
        assistant = load_assistant(self.ws, embedder=self.embedder, writes=False)
        outcomes = measure(assistant, items)
        self._line(render_report(report(items, outcomes, name=TASK, digest=assistant.digest)))

    # 6 ---------------------------------------------------------------------------------------------------------------

    def show_turn(self) -> None:
        items = load_items(self.exam, "harvest")
        assistant = load_assistant(self.ws, self.first, embedder=self.embedder, writes=False)
        chosen = [item for item in items if item.answerable][: self.settings.users]
        with Progress("simulated users", len(chosen), "questions") as progress:
            asked = simulate_users(self.ws, assistant, chosen, progress=progress.update)
        self._line(
            f"{asked.asked + asked.already:,} questions by simulated users, who know which document is right: "
            f"{asked.approved:,} answers approved, {asked.corrected:,} corrected, {asked.already:,} asked before"
        )
        for title, recipe in (
            ("A candidate that learned from the feedback", Recipe(seed=self.settings.seed)),
            ("A deliberately worse candidate, which learned wrong answers", Recipe("shuffled", self.settings.seed)),
        ):
            self._line(f"\n{title}")
            known = self.ledger.value(recipe.kind, partial(self._turned, recipe))
            self._line(f"{known}{self._again()}")

    def _turned(self, recipe: Recipe) -> str:
        def tell(text: str) -> None:
            if not text.startswith("epoch"):
                self._line(f"  {text}")

        return render_turn(turn(self.ws, TASK, recipe=recipe, embedder=self.embedder, tell=tell))

    # 7 ---------------------------------------------------------------------------------------------------------------

    def show_lineage(self) -> None:
        """Of an answer by what is live now, so that the chain holds all that the turn added."""
        assistant = load_assistant(self.ws, embedder=self.embedder)
        for question in self._questions():
            answer = assistant.complete(ChatRequest([Message("user", question)]))
            if not answer.abstained and answer.trace_id is not None:
                self.ws.recorder.flush()
                self._line(f"{question}\n")
                self._line(render_tree(lineage(self.ws, answer.trace_id)))
                break
        if self.model is not None and self._generated is not None and self._written:
            token = min(TOKEN, len(token_spans(self.model, self._written)) - 1)  # it may have stopped early
            self._line(f"\nand token {token} of what the trained model wrote above\n")
            self._line(render_tree(lineage(self.ws, self._generated, token=token)))


def _facts(reply: Any) -> dict[str, Any]:
    """What our server says of a reply beyond the OpenAI fields: trace, citations, abstention."""
    return (reply.model_extra or {}).get("windlass") or {}


def demo(
    ws: Workspace,
    docs: Path | None = None,
    *,
    settings: DemoSettings | None = None,
    say: Callable[[str], object] = print,
) -> None:
    """Runs the demo on the documents of the folder `docs`, or on the Python documentation of this machine."""
    settings = settings or DemoSettings()
    source: Source
    if docs is None:
        source = PythonDocs()
        state: Any = platform.python_version()
        settings = replace(
            settings, questions=settings.questions or PYTHON_QUESTIONS, prompt=settings.prompt or PYTHON_PROMPT
        )
    else:
        source = Folder(docs)
        state = _state(docs)
    key = sha256_json([__version__, source.name, state, settings.vocabulary, settings.depth, settings.minutes])
    Demo(ws, source, key, settings, say).run()


def _state(folder: Path) -> list[tuple[str, int, int]]:
    """Name, size and time of change of every file: a folder that changed is another source."""
    found = []
    for path in sorted(folder.rglob("*")) if folder.is_dir() else []:
        with contextlib.suppress(OSError):  # a file that cannot be looked at is reported when the corpus is read
            about = path.stat()
            found.append((path.relative_to(folder).as_posix(), about.st_size, about.st_mtime_ns))
    return found
