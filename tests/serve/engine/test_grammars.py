from __future__ import annotations

import json
import math
import re
import threading
from collections.abc import Sequence
from typing import Any

import jsonschema
import pytest
import torch
from constraint_world import draw, end_of, llama_like, metaspace, trained, untidied_wordpiece
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from windlass.core.errors import InputError, Unsupported, WindlassError
from windlass.serve.engine.constraints.grammars import CACHED, MAX_TEXT, Grammars

MAKERS = {"bpe": lambda: trained("bpe"), "unigram": lambda: trained("unigram"), "llama": llama_like}
KNOWN: dict[str, Grammars] = {}


def grammars(kind: str) -> tuple[Tokenizer, Grammars, int]:
    tokenizer = MAKERS[kind]()
    eos = end_of(tokenizer)
    if kind not in KNOWN:
        KNOWN[kind] = Grammars(tokenizer, [eos])
    return tokenizer, KNOWN[kind], eos


def write(kind: str, constraint: Any, seed: int = 0, **settings: Any) -> str:
    tokenizer, _, eos = grammars(kind)
    tokens = draw(constraint, tokenizer.get_vocab_size(), eos, seed, **settings)
    return str(tokenizer.decode(tokens, skip_special_tokens=False))


def accepts(kind: str, constraint: Any, text: str) -> bool:
    """Whether a text may be written, token for token, and end there."""
    tokenizer, own, eos = grammars(kind)
    for token in own._spelling.encode((" " if own._spelling.lead else "") + text):
        logits = torch.zeros(tokenizer.get_vocab_size())
        if constraint.ended:
            return False
        constraint.allow(logits)
        if logits[token] != 0:
            # Forced stretches are written as the tokenizer splits them; what is encoded as a whole may be split
            # otherwise, so the text itself is tried.
            return _accepts_bytes(own, constraint, text)
        constraint.accept(token)
    if constraint.ended:
        return True
    logits = torch.zeros(tokenizer.get_vocab_size())
    constraint.allow(logits)
    return bool(logits[eos] == 0)


def _accepts_bytes(own: Grammars, constraint: Any, text: str) -> bool:
    matcher = constraint._matcher.deep_copy()
    matcher.reset()
    written = own._spelling.encode((" " if own._spelling.lead else "") + text)
    return matcher.try_consume_tokens(written) == len(written) and matcher.is_accepting()


# schemas of all kinds, each with values that may or may not satisfy it -----------------------------------------------

names = st.sampled_from(["a", "b", "näme", "two words", 'qu"ote', "back\\slash"])
words = st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"]), max_size=4)
numbers = st.integers(-50, 50)
literals = st.none() | st.booleans() | numbers | st.sampled_from([0.5, -2.25, 1e-3]) | words
patterns = st.sampled_from(["^[a-c]+$", "b", "^a|b$", r"^\d{2}$", "^[ab]{1,3}x?$", r"\.", "^[^a]$", "(ab)+"])


def bounds(draw: Any, low: str, high: str, values: Any, steps: Sequence[float] = range(5)) -> dict[str, Any]:
    chosen: dict[str, Any] = {}
    if draw(st.booleans()):
        chosen[low] = draw(values)
    if draw(st.booleans()):
        chosen[high] = draw(values) if low not in chosen else chosen[low] + draw(st.sampled_from(steps))
    return chosen


@st.composite
def simple(draw: Any) -> dict[str, Any]:
    match draw(st.sampled_from(["string", "integer", "number", "literal", "pattern", "format", "types"])):
        case "string":
            return {"type": "string", **bounds(draw, "minLength", "maxLength", st.integers(0, 4))}
        case "integer":
            found = {"type": "integer", **bounds(draw, "minimum", "maximum", numbers)}
            return found | ({"multipleOf": draw(st.integers(1, 3))} if draw(st.booleans()) else {})
        case "number":
            low = draw(st.sampled_from(["minimum", "exclusiveMinimum"]))
            high = draw(st.sampled_from(["maximum", "exclusiveMaximum"]))
            steps = [0.25, 0.5, 1, 1.5, 3]
            return {"type": "number", **bounds(draw, low, high, numbers | st.sampled_from([0.5, -1.25]), steps)}
        case "literal":
            chosen = draw(st.lists(literals, min_size=1, max_size=3))
            return {"enum": chosen} if draw(st.booleans()) else {"const": chosen[0]}
        case "pattern":
            return {"type": "string", "pattern": draw(patterns)}
        case "format":
            return {"type": "string", "format": draw(st.sampled_from(["date", "date-time", "ipv4", "uuid", "ipv6"]))}
        case _:
            kinds = ["null", "boolean", "integer", "string"]
            return {"type": draw(st.lists(st.sampled_from(kinds), min_size=1, max_size=3, unique=True))}


@st.composite
def compound(draw: Any, inner: Any) -> dict[str, Any]:
    match draw(st.sampled_from(["object", "array", "tuple", "map", "anyOf", "allOf"])):
        case "object":
            properties = draw(st.dictionaries(names, inner, max_size=3))
            required = draw(st.lists(st.sampled_from(sorted(properties)), unique=True)) if properties else []
            found = {"type": "object", "properties": properties, "required": required}
            return found | ({"additionalProperties": False} if draw(st.booleans()) else {})
        case "array":
            return {"type": "array", "items": draw(inner), **bounds(draw, "minItems", "maxItems", st.integers(0, 3))}
        case "tuple":
            return {"type": "array", "prefixItems": draw(st.lists(inner, min_size=1, max_size=2)), "items": False}
        case "map":
            found = {"type": "object", "patternProperties": {"^k": draw(inner)}, "additionalProperties": False}
            return found | {"maxProperties": 2}
        case "anyOf":
            return {"anyOf": draw(st.lists(inner, min_size=1, max_size=2))}
        case _:
            return {"allOf": [draw(inner)], "description": "both"}


schemas = st.recursive(simple(), compound, max_leaves=4)
values = st.recursive(
    literals,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(names | st.sampled_from(["k", "kk"]), inner, max_size=3)
    ),
    max_leaves=4,
)


def validator(schema: Any) -> Any:
    draft = jsonschema.validators.validator_for(schema, default=jsonschema.Draft202012Validator)
    return draft(schema, format_checker=draft.FORMAT_CHECKER)


def valid(schema: Any, value: Any) -> bool:
    return bool(validator(schema).is_valid(value))


def made(kind: str, schema: Any) -> Any:
    try:
        return grammars(kind)[1].json_schema(schema)
    except WindlassError as error:
        assume("no text satisfies" not in error.message and "nsatisfiable" not in error.message)
        assume("too complex" not in error.message)
        raise


QUICK = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow, HealthCheck.filter_too_much]}


@pytest.mark.parametrize("kind", MAKERS)
@settings(max_examples=60, **QUICK)
@given(schema=schemas, seed=st.integers(0, 1000), jump=st.booleans())
def test_whatever_is_drawn_under_a_schema_satisfies_it(kind: str, schema: Any, seed: int, jump: bool) -> None:
    constraint = made(kind, schema)
    text = write(kind, constraint, seed, jump=jump)
    finished = accepts(kind, made(kind, schema), text)
    if not finished:  # drawn to the limit, as nothing made the writer stop
        return
    value = json.loads(text)
    jsonschema.Draft202012Validator(schema, format_checker=jsonschema.Draft202012Validator.FORMAT_CHECKER).validate(
        value
    )


@settings(max_examples=250, **QUICK)
@given(schema=schemas, value=values)
def test_a_value_that_a_schema_refuses_cannot_be_written(schema: Any, value: Any) -> None:
    constraint = made("bpe", schema)
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    if accepts("bpe", constraint, text):
        assert valid(schema, value), text


@settings(max_examples=60, **QUICK)
@given(value=values)
def test_any_value_can_be_written_where_everything_is_allowed(value: Any) -> None:
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    assert accepts("bpe", made("bpe", True), text)
    assert accepts("bpe", made("bpe", {"const": value}), text)


OLDER = {"$schema": "http://json-schema.org/draft-07/schema#"}


@pytest.mark.parametrize(
    ("schema", "wrong"),
    [
        ({"type": "string", "minLength": 3}, '"ab"'),
        ({"type": "string", "maxLength": 3}, '"abcd"'),
        ({"type": "string", "pattern": "^a+$"}, '"b"'),
        ({"type": "string", "format": "date"}, '"2023-02-29"'),
        ({"type": "string", "format": "ipv4"}, '"1.2.3.256"'),
        ({"type": "integer"}, "1.5"),
        ({"type": "integer", "minimum": 10}, "9"),
        ({"type": "integer", "exclusiveMaximum": 10}, "10"),
        ({"type": "integer", "multipleOf": 3}, "10"),
        ({"type": "number", "maximum": 0.5}, "0.51"),
        # An excluded whole number, and a bound less than 1 away from it.
        ({"type": "number", "exclusiveMinimum": 0, "maximum": 0.5}, "0"),
        ({"type": "number", "exclusiveMinimum": -2.5, "exclusiveMaximum": -2}, "-2"),
        ({"allOf": [{"exclusiveMaximum": 0}, {"type": "number", "minimum": -0.5}]}, "-0"),
        ({"enum": ["a", 1]}, '"b"'),
        ({"const": {"a": 1}}, '{"a":2}'),
        ({"type": "array", "items": {"type": "integer"}}, '["a"]'),
        ({"type": "array", "minItems": 2}, "[1]"),
        ({"type": "array", "maxItems": 1}, "[1,2]"),
        ({"type": "array", "prefixItems": [{"type": "null"}]}, "[1]"),
        ({"type": "object", "required": ["a"]}, "{}"),
        ({"type": "object", "properties": {"a": {"type": "null"}}}, '{"a":1}'),
        ({"type": "object", "additionalProperties": False}, '{"a":1}'),
        ({"type": "object", "patternProperties": {"^a": {"type": "null"}}}, '{"ab":1}'),
        ({"type": "object", "minProperties": 1}, "{}"),
        ({"type": "object", "maxProperties": 1}, '{"a":1,"b":2}'),
        ({"allOf": [{"minimum": 3}, {"type": "integer"}]}, "2"),
        ({"anyOf": [{"type": "null"}, {"type": "boolean"}]}, "1"),
        ({"oneOf": [{"type": "null"}, {"type": "boolean"}]}, "1"),
        ({"$ref": "#/$defs/a", "$defs": {"a": {"type": "null"}}}, "1"),
        ({**OLDER, "items": [{"type": "null"}], "additionalItems": False}, "[null,1]"),
        # A second spelling of a key must not slip by the schema of the first.
        ({"type": "object", "properties": {"a": {"type": "null"}}}, '{"\\u0061":1}'),
        ({"type": "object", "properties": {"a": {"type": "null"}}}, '{"a":null,"a":1}'),
    ],
)
def test_each_keyword_forbids_what_it_says(schema: Any, wrong: str) -> None:
    parsed = json.loads(wrong)
    assert not valid(schema, parsed) or "\\u" in wrong
    assert not accepts("bpe", made("bpe", schema), wrong)


TREE = {
    "$ref": "#/$defs/node",
    "$defs": {
        "node": {
            "type": "object",
            "properties": {
                "value": {"type": "integer", "minimum": 0, "maximum": 9},
                "children": {"type": "array", "items": {"$ref": "#/$defs/node"}, "maxItems": 2},
            },
            "required": ["value", "children"],
            "additionalProperties": False,
        }
    },
}


def test_a_recursive_schema_is_followed() -> None:
    assert accepts("bpe", made("bpe", TREE), '{"value":1,"children":[{"value":2,"children":[]}]}')
    assert not accepts("bpe", made("bpe", TREE), '{"value":1,"children":[{"value":22,"children":[]}]}')


@pytest.mark.parametrize("kind", MAKERS)
def test_a_text_ends_exactly_where_the_grammar_may_end(kind: str) -> None:
    tokenizer, own, eos = grammars(kind)
    constraint = own.regex("[0-9]{2,3}")
    size = tokenizer.get_vocab_size()
    digit = own._spelling.encode("7")[-1]
    allowed = []
    for _ in range(3):
        logits = torch.zeros(size)
        constraint.allow(logits)
        allowed.append(bool(logits[eos] == 0))
        if logits[digit] != 0:  # the space that is dropped comes first
            constraint.accept(own._spelling.encode(" ")[0])
        constraint.accept(digit)
    assert allowed == [False, False, True]
    assert constraint.ended
    again = own.regex("[0-9]+")
    if not own._spelling.lead:
        again.accept(digit)
        again.accept(eos)
        assert again.ended


@pytest.mark.parametrize("kind", [*MAKERS, "meta", "words"])
@pytest.mark.parametrize("jump", [False, True])
def test_choices_come_out_as_they_are(kind: str, jump: bool) -> None:
    MAKERS.setdefault("meta", metaspace)
    MAKERS.setdefault("words", untidied_wordpiece)
    own = grammars(kind)[1]
    choices = ["cat", "the cat", " led", "ca{t}", 'a"b']
    if kind in ("bpe", "unigram", "llama"):
        choices += ["Kätzchen\n", "日本 🎈", "/a\\b"]
    if kind == "words":
        choices = ["cat", "catcat cat", "ca { t"]
    found = {write(kind, own.choice(choices), seed, jump=jump) for seed in range(80)}
    assert found == set(choices)


def test_choice_regex_and_grammar_mean_what_they_say() -> None:
    own = grammars("bpe")[1]
    assert all(re.fullmatch(r"[a-c]{2}\d", write("bpe", own.regex(r"[a-c]{2}[0-9]"), seed)) for seed in range(10))
    lark = 'start: "sum(" NUM ("," NUM)* ")"\nNUM: /[0-9]{1,2}/'
    assert all(re.fullmatch(r"sum\(\d{1,2}(,\d{1,2})*\)", write("bpe", own.grammar(lark), seed)) for seed in range(10))


def test_forced_tokens_are_those_that_masks_would_leave() -> None:
    tokenizer, own, _ = grammars("bpe")
    schema = {
        "type": "object",
        "properties": {"name": {"enum": ["Tom", "Tim"]}, "age": {"type": "integer", "maximum": 99, "minimum": 10}},
        "required": ["name", "age"],
        "additionalProperties": False,
    }
    for seed in range(20):
        plain, jumping = own.json_schema(schema), own.json_schema(schema)
        generator = torch.Generator().manual_seed(seed)
        skipped = 0
        while not plain.ended:
            assert jumping.ended == plain.ended
            # Greedy on random logits: with a model, those of a place would be equal with and without jumping, as the
            # tokens before it are.
            forced = jumping.forced()
            for token in forced or [None]:
                logits = torch.rand(tokenizer.get_vocab_size(), generator=generator)
                plain.allow(logits)
                if token is not None:
                    assert torch.isfinite(logits).nonzero().flatten().tolist() == [token]
                    skipped += 1
                token = int(logits.argmax())
                plain.accept(token)
                jumping.accept(token)
        assert skipped > 5


def test_rolled_back_and_copied_constraints_go_on_as_if_nothing_had_been() -> None:
    tokenizer, own, eos = grammars("bpe")
    size = tokenizer.get_vocab_size()
    constraint = own.json_schema(TREE)
    written = draw(own.json_schema(TREE), size, eos, 3, longest=60)
    masks = []
    for token in written:
        logits = torch.zeros(size)
        constraint.allow(logits)
        masks.append(logits)
        constraint.accept(token)
    other = constraint.copy()
    for back in (1, 3, 7):
        constraint.rollback(back)
        logits = torch.zeros(size)
        constraint.allow(logits)
        assert torch.equal(logits, masks[len(written) - back])
        for token in written[-back:]:
            constraint.accept(token)
    if not constraint.ended:
        logits, again = torch.zeros(size), torch.zeros(size)
        constraint.allow(logits)
        other.allow(again)
        assert torch.equal(logits, again)


def test_special_tokens_are_never_part_of_a_text() -> None:
    tokenizer, own, eos = grammars("bpe")
    logits = torch.zeros(tokenizer.get_vocab_size() + 5)
    own.regex("(?s:.*)").allow(logits)
    special = [number for number, added in tokenizer.get_added_tokens_decoder().items() if added.special]
    assert [number for number in special if logits[number] == 0] == [eos]
    assert (logits[tokenizer.get_vocab_size() :] == -math.inf).all()


def test_a_token_that_is_not_allowed_is_refused() -> None:
    _, own, eos = grammars("bpe")
    with pytest.raises(InputError, match=f"does not allow token {eos}"):
        own.choice(["cat"]).accept(eos)


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda own: own.regex("(?=a)b"), "look-around"),
        (lambda own: own.regex("["), "'regex' cannot be used"),
        (lambda own: own.regex("a" * (MAX_TEXT + 1)), "characters"),
        (lambda own: own.regex("[^\\s\\S]"), "no text"),
        (lambda own: own.regex(3), "must be a text"),
        (lambda own: own.regex("\ud800"), "surrogate"),
        (lambda own: own.json_schema({"const": "\udfff"}), "surrogate"),
        (lambda own: own.choice([]), "'choice'"),
        (lambda own: own.choice(["a", ""]), "'choice'"),
        (lambda own: own.choice([1]), "'choice'"),
        (lambda own: own.grammar("start: missing"), "'grammar' cannot be used"),
        (lambda own: own.grammar('start: %json {"type": "string", "not": {}, "x-guidance": {"lenient": true}}'), "not"),
        (lambda own: own.json_schema(False), "'schema'"),
        (lambda own: own.json_schema({"type": "integer", "minimum": 5, "maximum": 2}), "'schema' cannot be"),
        (lambda own: own.json_schema({"pattern": "(?<=a)b"}), "'schema' cannot be used"),
        (lambda own: own.json_schema({"$ref": "#"}), "'schema'"),
        (lambda own: own.json_schema({"pattern": "((a{1,999}){1,999}){1,999}b", "minLength": 99999}), "'schema'"),
        (lambda own: own.json_schema({"uniqueItems": True}), "'uniqueItems'"),
    ],
)
def test_what_cannot_be_enforced_is_refused_by_name(make: Any, told: str) -> None:
    with pytest.raises((InputError, Unsupported), match=told):
        make(grammars("bpe")[1])


def test_compiled_grammars_are_kept_and_the_oldest_forgotten() -> None:
    tokenizer = trained("bpe")
    own = Grammars(tokenizer, [end_of(tokenizer)])
    own.choice(["cat"])
    first = next(iter(own._compiled.values()))
    own.choice(["cat"])
    assert next(iter(own._compiled.values())) is first
    for number in range(CACHED):
        own.choice([f"cat {number}"])
    assert len(own._compiled) == CACHED
    assert first not in own._compiled.values()


def test_constraints_of_one_grammar_do_not_disturb_each_other() -> None:
    tokenizer, own, eos = grammars("bpe")
    alone = [draw(own.json_schema(TREE), tokenizer.get_vocab_size(), eos, seed, longest=40) for seed in range(6)]
    together: dict[int, list[int]] = {}

    def work(seed: int) -> None:
        together[seed] = draw(own.json_schema(TREE), tokenizer.get_vocab_size(), eos, seed, longest=40)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [together[seed] for seed in range(6)] == alone
