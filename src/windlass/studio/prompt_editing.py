"""Editing a prompt: what is saved is a new version, and what somebody else saved meanwhile is shown, not overwritten.

The form holds what the files hold (`apply.prompts.file`): the instructions, the settings as TOML, the examples one a
line. Saved unchanged it is the same prompt to the byte, so that files and studio may take turns.
"""

from __future__ import annotations

from dataclasses import dataclass

from starlette.responses import RedirectResponse, Response

from windlass.apply.prompts import artifact as prompts
from windlass.apply.prompts.file import EXAMPLES, examples_of, parts_of, settings_of, settings_text
from windlass.apply.prompts.value import SETTINGS, Prompt
from windlass.core.artifacts import Artifact
from windlass.core.errors import InputError
from windlass.core.records import ArtifactRecord
from windlass.studio.difference import Changed, changes
from windlass.studio.prompts import address
from windlass.studio.web import Visit

MAX_CHARACTERS = 400_000
"""Of a prompt that is edited in a browser; larger ones are edited in their files."""
MAX_BYTES = 3_900_000
"""Of the form, in which a character that takes three bytes is written in nine."""


@dataclass(frozen=True, slots=True)
class Draft:
    """A prompt as it stands in the boxes."""

    instructions: str
    settings: str
    examples: str
    shows: bool
    """Whether the prompt says which examples are shown; without, the task's own are."""

    @property
    def prompt(self) -> Prompt:
        """Raises `InputError` that names the box and its line."""
        set_ = settings_of(self.settings, "What stands under Settings")
        shown = examples_of(self.examples, "Examples") if self.shows or self.examples.strip() else None
        return Prompt(self.instructions, shown, set_)

    @property
    def untouchable(self) -> str:
        """Why a browser cannot hold it unchanged; empty when it can."""
        whole = f"{self.instructions}{self.settings}{self.examples}"
        if "\0" in whole:
            return "It holds the character U+0000, which no web page can hold."
        if len(whole) > MAX_CHARACTERS:
            return f"It has {len(whole):,} characters; at most {MAX_CHARACTERS:,} are edited here."
        return ""


def draft_of(prompt: Prompt) -> Draft:
    shown = parts_of(prompt).get(EXAMPLES, b"").decode()
    return Draft(prompt.instructions, settings_text(prompt.settings), shown, prompt.examples is not None)


def _drafted(visit: Visit) -> Draft:
    # A browser ends lines by \r\n, whatever they were ended by before.
    texts = {name: text.replace("\r\n", "\n") for name, text in visit.form.items()}
    return Draft(
        texts.get("instructions", ""), texts.get("settings", ""), texts.get("examples", ""), "shows" in visit.form
    )


def show(visit: Visit) -> Response:
    base = prompts.find(visit.ws, visit.path("ref"))
    return _page(visit, base, draft_of(prompts.read(base)), _newest(visit, base))


def save(visit: Visit) -> Response:
    """Stores what stands in the boxes as the next version; or shows what stands against it, and keeps the boxes."""
    base, draft = prompts.find(visit.ws, visit.path("ref")), _drafted(visit)
    name = base.record.name
    try:
        if draft.untouchable:
            raise InputError(draft.untouchable, "Edit its files, and store them: windlass prompt add FILE.md")
        prompt = draft.prompt
    except InputError as error:
        return _page(visit, base, draft, _newest(visit, base), problem=error, status=400)
    before = prompts.read(base)
    if prompt == before and parts_of(prompt) == parts_of(before):
        return RedirectResponse(f"{address(base.record)}?saved=same", status_code=303)
    with visit.studio.saving:  # between the look and the save nobody else saves here
        newest = _newest(visit, base)
        if visit.form.get("do") == "compare":
            return _page(visit, base, draft, newest, difference=changes(before, prompt))
        if visit.form.get("newest") != newest.digest:
            theirs = changes(prompts.read(visit.ws.artifacts.get(newest.ref)), prompt)
            return _page(visit, base, draft, newest, conflict=True, difference=theirs, status=409)
        known = {record.digest for record in prompts.versions(visit.ws, name)}
        made = prompts.add(visit.ws, name, prompt)
    saved = "same" if made.digest in known else "new"
    return RedirectResponse(f"{address(made.record)}?saved={saved}", status_code=303)


def _newest(visit: Visit, base: Artifact) -> ArtifactRecord:
    return prompts.versions(visit.ws, base.record.name)[0]


def _page(
    visit: Visit,
    base: Artifact,
    draft: Draft,
    newest: ArtifactRecord,
    *,
    problem: InputError | None = None,
    conflict: bool = False,
    difference: list[Changed] | None = None,
    status: int = 200,
) -> Response:
    """`difference` is from the newest version where that is in conflict, else from the one that is edited."""
    response = visit.page(
        "prompt_edit.html",
        "prompts",
        a=base.record,
        draft=draft,
        # What the person has seen: when it is not the newest any more, saving says so.
        seen=newest.digest if conflict or not visit.form else visit.form.get("newest", ""),
        newest=newest,
        problem=problem,
        conflict=conflict,
        changes=difference,
        settings=SETTINGS,
    )
    response.status_code = status
    return response
