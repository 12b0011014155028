"""Prompts in the studio, over HTTP: versions that stay, labels that move, edits that lose nothing, tries that cost."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import pytest

pytest.importorskip("starlette", reason="needs windlass[serve]")

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from prompt_seed import BREAKING, FIRST, SECOND, search, seed_prompts
from starlette.applications import Starlette
from starlette.testclient import TestClient

from windlass.apply.prompts import Example, Prompt, artifact, read_prompt, write_prompt
from windlass.core.errors import ProviderError
from windlass.core.workspace import Workspace
from windlass.studio.app import routes
from windlass.studio.difference import changes
from windlass.testing import Scripted


class Forms(HTMLParser):
    """The fields that a browser would send: hidden ones, ticks, and boxes without the line that HTML drops."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.fields: dict[str, str] = {}
        self.text = ""
        self._box: str | None = None
        self.feed(source)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        said = dict(attrs)
        if tag == "textarea":
            self._box = str(said["name"])
            self.fields[self._box] = ""
        elif tag == "input" and (said.get("type") == "hidden" or "checked" in said):
            self.fields[str(said["name"])] = str(said["value"])

    def handle_endtag(self, tag: str) -> None:
        if tag == "textarea" and self._box is not None:
            # As the HTML standard has it: the first newline is dropped, and those that are sent are \r\n.
            self.fields[self._box] = self.fields[self._box].removeprefix("\n").replace("\n", "\r\n")
            self._box = None

    def handle_data(self, data: str) -> None:
        if self._box is not None:
            self.fields[self._box] += data
        else:
            self.text += f"{data} "


@pytest.fixture
def ws(tmp_path: Path) -> Iterator[Workspace]:
    with Workspace(tmp_path) as made:
        yield made


def opened(ws: Workspace, **models: Scripted) -> TestClient:
    return TestClient(Starlette(routes=routes(ws, models)), base_url="http://localhost", follow_redirects=False)


def post(client: TestClient, address: str, fields: dict[str, str], site: str = "same-origin"):  # type: ignore[no-untyped-def]
    return client.post(address, data=fields, headers={"Sec-Fetch-Site": site})


def form(client: TestClient, address: str) -> dict[str, str]:
    response = client.get(address)
    assert response.status_code == 200, response.text[:300]
    return Forms(response.text).fields


# what is shown ----------------------------------------------------------------------------------------------------


def test_the_list_tells_versions_labels_and_who_used_them(ws: Workspace) -> None:
    seed_prompts(ws)
    text = " ".join(Forms(opened(ws).get("/prompts").text).text.split())
    assert re.search(r"tone live @1 staging @2 3 6 83\.3 % 100 % of 1 \$0\.0016 4 of 8 priced", text), text
    assert "breaking 1 0 – – – never" in text


def test_a_version_leads_to_its_traces_and_they_lead_back(ws: Workspace) -> None:
    seed_prompts(ws)
    client = opened(ws)
    two = artifact.find(ws, "tone@2")
    page = client.get("/prompts/tone@2").text
    assert f'href="/traces?prompt={two.digest}"' in page
    traces = re.findall(r'href="/traces/([0-9a-f]{32})"', client.get(f"/traces?prompt={two.digest}").text)
    assert len(traces) == 5
    assert all(f'href="/traces/{trace}"' in page for trace in traces)
    for trace in traces:
        assert 'href="/prompts/tone@2">tone@2</a>' in client.get(f"/traces/{trace}").text
        spans = [span for span in ws.store.trace(trace) if span.operation == "chat"]
        assert spans
        for span in spans:
            assert 'href="/prompts/tone@2">' in client.get(f"/traces/{trace}/spans/{span.span_id}").text


def test_the_same_words_under_two_names_are_called_as_the_span_calls_them(ws: Workspace) -> None:
    seed_prompts(ws)
    copy = artifact.add(ws, "mood", Prompt(FIRST))
    assert copy.digest == artifact.find(ws, "tone@1").digest
    with ws.recorder.span("mood", "invoke_workflow") as span:
        span["gen_ai.prompt.name"], span["gen_ai.prompt.version"] = "mood", "1"
        span["windlass.prompt.digest"] = copy.digest
    assert 'href="/prompts/mood@1">mood@1</a>' in opened(ws).get(f"/traces/{span.trace_id}").text


def test_differences_mark_the_words(ws: Workspace) -> None:
    seed_prompts(ws)
    page = opened(ws).get("/prompts/tone@3?with=tone@1").text
    assert "<ins>the product, not about the delivery or the shop</ins>" in page
    assert "<del>it</del>" in page
    assert "temperature = 0.2" in page
    assert "Lovely hinges" in page
    assert "from <a" in page and ">tone@1</a> to tone@3" in page


def test_differences_say_what_git_would() -> None:
    long = [f"Line {n}." for n in range(40)]
    old, new = Prompt("\n".join(long)), Prompt("\n".join([*long[:20], "Another.", *long[21:], "One more."]))
    (file,) = changes(old, new)
    assert (file.added, file.removed) == (2, 1)
    gaps = [line.pieces[0][0] for line in file.lines if line.kind == "gap"]
    assert gaps == ["17 lines the same", "13 lines the same"]
    assert [(line.before, line.after) for line in file.lines if line.kind == "new"] == [(None, 21), (None, 41)]
    assert changes(old, old) == []


@pytest.mark.parametrize("page", ["", "/edit", "/try"])
def test_a_prompt_is_data_wherever_it_stands(ws: Workspace, page: str) -> None:
    seed_prompts(ws)
    source = opened(ws).get(f"/prompts/breaking{page}").text
    assert "<script>document" not in source and "<img src=x" not in source
    assert source.count("<textarea") == source.count("</textarea>"), "a box ends where it is meant to"
    if page == "/edit":
        assert Forms(source).fields["instructions"].replace("\r\n", "\n") == BREAKING


def test_what_is_no_prompt_is_refused(ws: Workspace) -> None:
    seed_prompts(ws)
    client = opened(ws)
    for address in ("none", "tone@9", "tone:nowhere", "f" * 64):
        for page in ("", "/edit", "/try"):
            assert client.get(f"/prompts/{address}{page}").status_code == 404, address
    assert client.get("/prompts/reviews@1").status_code == 400
    assert client.get("/prompts/tone@1?with=reviews@1").status_code == 400


# labels -----------------------------------------------------------------------------------------------------------


def test_a_label_moves_with_its_reason(ws: Workspace) -> None:
    seed_prompts(ws)
    client = opened(ws)
    fields = form(client, "/prompts/tone@2")
    response = post(client, "/prompts/tone@2/label", {**fields, "label": "live", "reason": "it reads better"})
    assert (response.status_code, response.headers["location"]) == (303, "/prompts/tone@2#labels")
    assert artifact.find(ws, "tone:live").ref == "tone@2"
    assert ws.store.releases("tone")[0].reason == "it reads better"
    assert "it reads better" in client.get("/prompts/tone@2").text
    again = post(client, "/prompts/tone@3/label", {**form(client, "/prompts/tone@3"), "label": "canary-7"})
    assert again.status_code == 303
    assert ws.store.releases("tone:canary-7")[0].reason == "labelled in the studio"


def test_a_label_that_moved_meanwhile_is_not_moved_over(ws: Workspace) -> None:
    seed_prompts(ws)
    client = opened(ws)
    fields = form(client, "/prompts/tone@2")
    artifact.label(ws, artifact.find(ws, "tone@3"), "tone", "live", "somebody else's")
    response = post(client, "/prompts/tone@2/label", {**fields, "label": "live"})
    assert response.status_code == 409
    assert "it is tone@3 now (somebody else&#39;s). Nothing was changed." in response.text
    assert artifact.find(ws, "tone:live").ref == "tone@3"
    artifact.label(ws, artifact.find(ws, "tone@1"), "tone", "fresh", "made meanwhile")
    assert post(client, "/prompts/tone@2/label", {**fields, "label": "fresh"}).status_code == 409


@pytest.mark.parametrize("label", ["", "Live", "latest", "a b", "x" * 41, "<script>"])
def test_labels_that_cannot_be(ws: Workspace, label: str) -> None:
    seed_prompts(ws)
    before = ws.store.releases()
    client = opened(ws)
    assert post(client, "/prompts/tone@2/label", {"label": label}).status_code == 400
    assert post(client, "/prompts/tone@2/label", {"label": "a", "reason": "x" * 1001}).status_code == 400
    assert ws.store.releases() == before


@pytest.mark.parametrize("action", ["label", "edit", "try"])
def test_nothing_changes_at_the_wish_of_another_site_or_by_looking(ws: Workspace, action: str) -> None:
    seed_prompts(ws)
    model = Scripted("good")
    client = opened(ws, model=model)
    fields = {"label": "live", "instructions": "Obey.", "do": "save", "in.review": "x", "model": "served:model"}
    fields["newest"] = artifact.find(ws, "tone").digest
    before = (ws.store.releases(), artifact.versions(ws))
    assert post(client, f"/prompts/tone@2/{action}", fields, site="cross-site").status_code == 403
    elsewhere = client.post(f"/prompts/tone@2/{action}", data=fields, headers={"Origin": "http://evil.example"})
    assert elsewhere.status_code == 403
    looked = client.get(f"/prompts/tone@2/{action}", params=fields)
    assert looked.status_code == (405 if action == "label" else 200)
    assert (ws.store.releases(), artifact.versions(ws)) == before
    assert model.requests == []


# editing ----------------------------------------------------------------------------------------------------------


def test_an_edit_is_a_new_version_and_the_old_one_stays(ws: Workspace) -> None:
    seed_prompts(ws)
    client = opened(ws)
    digest = artifact.find(ws, "tone@3").digest
    fields = form(client, "/prompts/tone@3/edit")
    fields["instructions"] = fields["instructions"].replace("good or bad", "good, or bad") + "\r\n\r\nBe fair."
    response = post(client, "/prompts/tone@3/edit", {**fields, "do": "save"})
    assert (response.status_code, response.headers["location"]) == (303, "/prompts/tone@4?saved=new")
    made = artifact.read(artifact.find(ws, "tone@4"))
    assert made.instructions == SECOND.replace("good or bad", "good, or bad") + "\n\nBe fair."
    assert made.settings == {"temperature": 0.2, "max_tokens": 20} and len(made.examples or ()) == 4
    assert artifact.find(ws, "tone@3").digest == digest
    assert artifact.find(ws, "tone:live").ref == "tone@1", "no label moves by itself"
    assert "Saved as tone@4" in client.get("/prompts/tone@4?saved=new").text
    ws.artifacts.verify(artifact.find(ws, "tone@3"))


def test_the_same_words_are_no_new_version(ws: Workspace) -> None:
    seed_prompts(ws)
    client = opened(ws)
    for version in (1, 2, 3):
        fields = form(client, f"/prompts/tone@{version}/edit")
        response = post(client, f"/prompts/tone@{version}/edit", {**fields, "do": "save"})
        assert response.headers["location"] == f"/prompts/tone@{version}?saved=same"
    back = form(client, "/prompts/tone@2/edit")
    back["settings"] = ""
    back["instructions"] = FIRST
    assert (
        post(client, "/prompts/tone@2/edit", {**back, "do": "save"}).headers["location"] == "/prompts/tone@1?saved=same"
    )
    assert len(artifact.versions(ws, "tone")) == 3


def test_who_saves_after_somebody_else_is_told_and_loses_nothing(ws: Workspace) -> None:
    seed_prompts(ws)
    client = opened(ws)
    fields = form(client, "/prompts/tone@3/edit") | {"instructions": "Mine.", "do": "save"}
    artifact.add(ws, "tone", Prompt("Theirs."))
    response = post(client, "/prompts/tone@3/edit", fields)
    assert response.status_code == 409
    assert "Not saved yet." in response.text and "tone@4 was stored" in response.text
    assert "Theirs." in response.text
    assert len(artifact.versions(ws, "tone")) == 4
    shown = Forms(response.text).fields
    assert shown["instructions"] == "Mine." and shown["examples"] == fields["examples"]
    assert (
        post(client, "/prompts/tone@3/edit", {**shown, "do": "save"}).headers["location"] == "/prompts/tone@5?saved=new"
    )
    assert artifact.read(artifact.find(ws, "tone@5")).instructions == "Mine."
    assert artifact.read(artifact.find(ws, "tone@4")).instructions == "Theirs."


def test_a_look_at_the_difference_saves_nothing_and_forgets_no_conflict(ws: Workspace) -> None:
    seed_prompts(ws)
    client = opened(ws)
    fields = form(client, "/prompts/tone@3/edit") | {"instructions": "Mine.", "do": "compare"}
    artifact.add(ws, "tone", Prompt("Theirs."))
    looked = post(client, "/prompts/tone@3/edit", fields)
    assert looked.status_code == 200 and "What would change" in looked.text
    assert len(artifact.versions(ws, "tone")) == 4
    again = Forms(looked.text).fields
    assert post(client, "/prompts/tone@3/edit", {**again, "do": "save"}).status_code == 409


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"instructions": " \r\n "}, "without instructions"),
        ({"settings": "temperature = "}, "What stands under Settings is not TOML"),
        ({"settings": "temperature = 1\r\nmood = 2"}, "no setting &#39;mood&#39;"),
        ({"examples": "{}\r\n"}, "Examples, line 1 is no example"),
        ({"examples": '{"inputs": {}, "answer": 1}\r\n\r\n['}, "Examples, line 3 is not JSON"),
        ({"instructions": "a\0b"}, "U+0000"),
        ({"instructions": "x" * 400_001}, "at most 400,000 are edited here"),
    ],
)
def test_a_mistake_is_named_and_the_boxes_stay(ws: Workspace, change: dict[str, str], why: str) -> None:
    seed_prompts(ws)
    client = opened(ws)
    fields = form(client, "/prompts/tone@3/edit") | {"do": "save"} | change
    response = post(client, "/prompts/tone@3/edit", fields)
    assert response.status_code == 400 and why in response.text, response.text[:2000]
    assert len(artifact.versions(ws, "tone")) == 3
    if "\0" not in fields["instructions"]:
        shown = Forms(response.text).fields
        assert all(shown[name] == fields[name] for name in ("instructions", "settings", "examples", "newest"))


def test_what_no_page_can_hold_is_left_to_files(ws: Workspace) -> None:
    for name, text in (("nul", "a\0b"), ("long", "word " * 100_000)):
        artifact.add(ws, name, Prompt(text))
        page = opened(ws).get(f"/prompts/{name}/edit").text
        assert "cannot be edited in a browser" in page and "<textarea" not in page
        assert f"windlass prompt show {name}@1 --out {name}.md" in page
        assert len(opened(ws).get(f"/prompts/{name}").text) < 100_000


texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=30)
examples = st.builds(Example, st.dictionaries(texts, texts | st.integers(), max_size=2), texts | st.none(), texts)
prompts = st.builds(
    Prompt,
    texts.map(lambda text: f"x{text}x"),
    st.none() | st.lists(examples, max_size=3),
    st.fixed_dictionaries({}, optional={"temperature": st.floats(0, 2), "stop": st.lists(texts, max_size=2)}),
)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(prompts)
@example(Prompt(BREAKING, [Example({"a": BREAKING}, BREAKING)], {"stop": [BREAKING, "\x7f"]}))
@example(Prompt("+++\nno settings\n+++", []))
@example(Prompt("a\u2028b\x0b\x0c\x85\ufeffc\n\n\n  d", None, {"extra": {"a b": [1, 1.0, {}]}}))
def test_from_a_file_to_the_studio_and_back_all_bytes_stay(ws: Workspace, tmp_path: Path, prompt: Prompt) -> None:
    path = tmp_path / "one.md"
    write_prompt(path, prompt)
    before = {file.name: file.read_bytes() for file in tmp_path.glob("one.*")}
    stored = artifact.add(ws, "one", read_prompt(path))
    client = opened(ws)
    fields = form(client, f"/prompts/{stored.ref}/edit")
    saved = post(client, f"/prompts/{stored.ref}/edit", {**fields, "do": "save"})
    assert saved.headers["location"] == f"/prompts/{stored.ref}?saved=same"
    # And through a change: made in the studio, and taken back there.
    fields["instructions"] += "!"
    changed = post(client, f"/prompts/{stored.ref}/edit", {**fields, "newest": _newest(ws), "do": "save"})
    made = changed.headers["location"].removeprefix("/prompts/").partition("?")[0]
    fields = form(client, f"/prompts/{made}/edit")
    fields["instructions"] = fields["instructions"].removesuffix("!")
    again = post(client, f"/prompts/{made}/edit", {**fields, "newest": _newest(ws), "do": "save"})
    back = artifact.find(ws, again.headers["location"].removeprefix("/prompts/").partition("?")[0])
    assert back.digest == stored.digest
    write_prompt(path, artifact.read(back))
    assert {file.name: file.read_bytes() for file in tmp_path.glob("one.*")} == before


def _newest(ws: Workspace) -> str:
    return artifact.versions(ws, "one")[0].digest


# trying -----------------------------------------------------------------------------------------------------------


def test_a_try_shows_answer_usage_cost_and_trace(ws: Workspace) -> None:
    seed_prompts(ws)
    model = Scripted("good", cost_usd=0.0123)
    client = opened(ws, model=model)
    fields = {"in.review": "It holds.\r\nAnd holds.", "model": "served:model", "form": "text"}
    response = post(client, "/prompts/tone@2/try", fields)
    assert response.status_code == 200
    text = " ".join(Forms(response.text).text.split())
    assert "Result good" in text and "10 → 5 tokens" in text and "cost $0.012" in text
    (request,) = model.requests
    assert [m.text for m in request.messages] == [SECOND, "It holds.\nAnd holds."]
    assert request.temperature == 0.2
    (trace,) = re.findall(r'href="/traces/([0-9a-f]{32})"', response.text)
    ws.recorder.flush()
    root, task, call = ws.store.trace(trace)
    assert (root.name, root.input, root.output) == ("try", {"review": "It holds.\nAnd holds."}, "good")
    digest = artifact.find(ws, "tone@2").digest
    assert task.attributes["windlass.prompt.digest"] == call.attributes["windlass.prompt.digest"] == digest
    assert "15 tokens were taken today" in text


def test_a_row_of_a_dataset_fills_the_boxes_and_says_what_is_right(ws: Workspace) -> None:
    seed_prompts(ws)
    model = Scripted("bad", "good", "good")
    client = opened(ws, model=model)
    fields = form(client, "/prompts/tone@3/try?dataset=reviews@1&row=2")
    assert fields["in.review"] == "The door fell off on the second day."
    assert (fields["dataset"], fields["row"]) == ("reviews@1", "2")
    assert model.requests == [], "to load is not to run"
    assert "as in the dataset" in post(client, "/prompts/tone@3/try", fields).text
    assert "not as in the dataset" in post(client, "/prompts/tone@3/try", fields).text
    for row in ("²", "0", "-1", "9" * 30, "x"):
        assert (
            post(opened(ws, model=Scripted("good")), "/prompts/tone@3/try", {**fields, "row": row}).status_code == 200
        )
    changed = post(client, "/prompts/tone@3/try", {**fields, "in.review": "Another."})
    assert "as in the dataset" not in changed.text, "what is right for the row says nothing of other inputs"
    assert len(model.last.messages) == 10, "instructions, four examples, the question"


def test_rows_of_other_kinds(ws: Workspace) -> None:
    seed_prompts(ws)
    with ws.artifacts.build("dataset", "mixed") as draft:
        rows = [{"review": "A", "stars": 2}, {"text": "B"}, "C", ["D"], {"inputs": {"review": "E"}, "expected": "bad"}]
        (draft.path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows) + "{\n")
    client = opened(ws, model=Scripted())
    page = "/prompts/tone@3/try?dataset=mixed@1&row="
    assert form(client, f"{page}1")["in.review"] == "A" and "in.stars" not in form(client, f"{page}1")
    taken = form(client, f"{page}1&fields=stars")
    assert (taken["in.stars"], taken["json.stars"]) == ("2", "1")
    assert form(client, f"{page}3")["in.review"] == "C"
    assert form(client, f"{page}4")["json.review"] == "1"
    assert form(client, f"{page}5")["in.review"] == "E"
    assert "Right, says the dataset: <b>bad</b>" in client.get(f"{page}5").text
    for number, why in ((2, "has no &#39;review&#39;; it has text."), (6, "is not JSON"), (0, "whole number")):
        response = client.get(f"{page}{number}")
        assert response.status_code == 400 and why in response.text
    assert client.get(f"{page}9").status_code == 404
    assert client.get("/prompts/tone@3/try?dataset=none").status_code == 404
    with ws.artifacts.build("dataset", "dark") as draft:
        (draft.path / "rows.parquet").write_bytes(b"x")
    assert client.get("/prompts/tone@3/try?dataset=dark").status_code == 400
    assert "dark@1" not in client.get("/prompts/tone@3/try").text, "it holds no rows that could be taken"


def test_answers_of_the_examples_form(ws: Workspace) -> None:
    shown = [
        Example({"note": "Ann, 3 chairs"}, {"name": "Ann", "orders": [{"what": "chair", "count": 3}], "due": None}),
        Example({"note": "Bob"}, {"name": "Bob", "orders": []}),
    ]
    artifact.add(ws, "crm", Prompt("Read the note.", shown))
    right = {"name": "Cy", "orders": [{"what": "desk", "count": 1}], "due": None}
    model = Scripted("no JSON", right)
    client = opened(ws, model=model)
    fields = form(client, "/prompts/crm/try") | {"in.note": "Cy wants a desk", "form": "like"}
    response = post(client, "/prompts/crm/try", fields)
    assert response.status_code == 200 and "asked 2 times" in response.text
    assert '"what": "desk"' in Forms(response.text).text
    assert model.requests[0].schema is not None
    choice = Scripted({"value": "Bob"})
    artifact.add(ws, "who", Prompt("Who?", [Example({"note": n}, n) for n in ("Ann", "Bob")]))
    fields = {"in.note": "It was Bob", "form": "choice"}
    assert ">Bob</div>" in post(opened(ws, model=choice), "/prompts/who/try", fields).text
    assert '"enum": ["Ann", "Bob"]' in json.dumps(choice.last.schema)


def test_inputs_that_no_task_can_have(ws: Workspace) -> None:
    seed_prompts(ws)
    model = Scripted("good")
    client = opened(ws, model=model)
    for fields, why in (
        ({}, "Nothing is typed"),
        ({"in.review": " "}, "Nothing is typed"),
        ({"in.class": "x"}, "cannot be the name of an input"),
        ({"in.a b": "x"}, "cannot be the name of an input"),
        ({"in.review": "{", "json.review": "1"}, "&#39;review&#39; is not JSON"),
        ({"in.review": "x", "model": "served:none"}, "There is no model"),
        ({"in.review": "x", "form": "like"}, "cannot be asked for"),
        ({"in.other": "x"}, "Example 1 of the prompt tone@3"),
    ):
        response = post(client, "/prompts/tone@3/try", fields)
        assert response.status_code == 400 and why in response.text, (fields, response.text[:3000])
    assert model.requests == []
    assert "No model is set up" in post(opened(ws), "/prompts/tone@3/try", {"in.review": "x"}).text


def test_tries_keep_to_their_budget(ws: Workspace) -> None:
    (ws.home / "windlass.toml").write_text("[studio]\ntokens_per_day = 1500\n")
    with Workspace(ws.home) as limited:
        seed_prompts(limited)
        model = Scripted(*["good"] * 5, cost_usd=0.01)
        client = opened(limited, model=model)
        fields = {"in.review": "It holds.", "model": "served:model"}
        assert post(client, "/prompts/tone@2/try", fields).status_code == 200
        model._usage = type(model._usage)(input=900, output=100)
        assert post(client, "/prompts/tone@2/try", fields).status_code == 200
        refused = post(client, "/prompts/tone@2/try", fields)
        assert refused.status_code == 429
        assert "The budget &#39;studio&#39; of 1,500 tokens a day does not allow this call" in refused.text
        assert len(model.requests) == 2
        assert "It holds." in Forms(refused.text).fields["in.review"]


@pytest.mark.parametrize(
    ("answers", "status", "why"),
    [
        ([ProviderError("The endpoint answered 503 <b>.", "Start it.", status=503)], 502, "answered 503 &lt;b&gt;."),
        (["", "", ""], 200, "Result"),
    ],
)
def test_a_try_that_fails_is_told_with_its_trace(ws: Workspace, answers: list[object], status: int, why: str) -> None:
    seed_prompts(ws)
    client = opened(ws, model=Scripted(*answers))  # type: ignore[arg-type]
    response = post(client, "/prompts/tone@2/try", {"in.review": "It holds.", "model": "served:model"})
    assert response.status_code == status and why in response.text
    (trace,) = re.findall(r'href="/traces/([0-9a-f]{32})"', response.text)
    assert client.get(f"/traces/{trace}").status_code == 200


# searches ---------------------------------------------------------------------------------------------------------


def test_a_search_is_shown_with_its_candidates_and_the_gate(ws: Workspace) -> None:
    search(ws)
    client = opened(ws)
    listed = client.get("/experiments").text
    assert "parity-prompt-search@1" in listed and "GO" in listed
    page = client.get("/experiments/parity-prompt-search@1")
    text = " ".join(Forms(page.text).text.split())
    assert "so the candidate is better" in text and "Released as parity" in text
    assert "rewriting 1" in text and "the incumbent" in text and "compared" in text
    assert 'href="/prompts/parity@1"' in page.text and 'href="/prompts/parity@2"' in page.text
    assert "last digit" in text, "what the search changed"
    record = ws.store.artifact("parity-prompt-search")
    assert record is not None
    card = record.card["difference"]
    assert f"+{card['estimate']:.3f}" in text
    held = json.loads((ws.artifacts.get("parity-prompt-search").path / "experiment.json").read_text())
    gains = [row["candidate"][0]["values"]["score"] - row["incumbent"][0]["values"]["score"] for row in held["items"]]
    assert f"Candidate better {sum(gain > 0 for gain in gains)} Same" in text
    assert "Compared in" in client.get("/prompts/parity@2").text
    assert "parity-prompt-search@1" in client.get("/").text


def test_a_search_whose_provider_failed_is_still_shown(ws: Workspace) -> None:
    search(ws)
    made = ws.artifacts.get("parity-prompt-search")
    held = json.loads((made.path / "experiment.json").read_text())
    for row in held["items"]:
        row["candidate"] = [{"repeat": 0, "values": {}, "errors": {"output": "down"}, "output": None, "trace": None}]
    for one in held["comparisons"]:
        one["missing"], one["reasons"] = 3, {"down": 3}
    for name, comparisons in (("failing", held["comparisons"]), ("dead", [])):
        with ws.artifacts.build("experiment", f"{name}-prompt-search") as draft:
            (draft.path / "experiment.json").write_text(json.dumps({**held, "comparisons": comparisons, "slices": []}))
            draft.add_parent("dataset", "0" * 64)
            for role in ("incumbent", "candidate"):
                draft.add_parent(role, made.parent(role))
    client = opened(ws)
    page = client.get("/experiments/failing-prompt-search")
    assert page.status_code == 200 and "3 pairs are left out of score: down" in page.text
    assert "Candidates of the search" not in page.text
    assert client.get("/experiments/dead-prompt-search").status_code == 200
    assert "dead-prompt-search" in client.get("/experiments").text
