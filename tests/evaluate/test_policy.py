"""The policy file: what it says is read as it is meant, and what is wrong with it is named."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from windlass.core.errors import ConfigError, InputError
from windlass.evaluate.gate import Limit, Rule, non_inferiority, superiority
from windlass.evaluate.policy import Policy, SliceRule, policy_from, read_policy

WHOLE = """
error_rate = 0.01
min_items = 100

[primary]
metric = "ndcg@10"
rule = "superior"

[[guard]]
metric = "latency_ms"
rule = "non-inferior"
statistic = "p95"
margin = 0.1
relative = true

[[guard]]
metric = "words"
rule = "equivalent"
margin = 5
error_rate = 0.05

[[ceiling]]
metric = "cost_usd"
at_most = 0.002

[[floor]]
metric = "safe"
at_least = 0.99

[slices]
by = ["language", "source"]
margin = 0.05
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "policy.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_a_whole_file_is_read(tmp_path: Path) -> None:
    policy = read_policy(write(tmp_path, WHOLE), known={"words": "lower"})
    assert policy.primary == "ndcg@10"
    assert policy.rule == Rule("superiority", error_rate=0.01, min_items=100)
    assert policy.guards == {
        "latency_ms": Rule("non-inferiority", 0.1, "lower", 0.01, min_items=100, statistic="p95", relative=True),
        "words": Rule("equivalence", 5.0, "lower", 0.05, min_items=100),
    }
    assert policy.limits == (
        Limit("cost_usd", at_most=0.002, error_rate=0.01, min_items=100),
        Limit("safe", at_least=0.99, error_rate=0.01, min_items=100),
    )
    assert policy.slices == SliceRule(("language", "source"), margin=0.05, error_rate=0.01)
    assert policy.level == pytest.approx(0.98)
    assert policy.metrics == ("ndcg@10", "latency_ms", "words", "cost_usd", "safe")
    assert Policy.from_json(json.loads(json.dumps(policy.to_json()))) == policy


PRIMARY = {"metric": "ndcg@10", "rule": "superior"}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({}, "missing primary"),
        ({"primary": {"metric": "ndcg@10"}}, "missing primary.rule"),
        ({"primary": {**PRIMARY, "marign": 1.0}}, "unknown key 'primary.marign'.*Did you mean 'primary.margin'"),
        ({"primry": PRIMARY}, "Did you mean 'primary'"),
        ({"primary": {**PRIMARY, "rule": "better"}}, "'primary.rule' is 'better'.*'superior'"),
        ({"primary": {**PRIMARY, "metric": "ndgc@10"}}, "metric 'ndgc@10'.*Did you mean 'ndcg@10'"),
        ({"primary": {**PRIMARY, "metric": "charm"}}, "metric 'charm'.*say which is better"),
        ({"primary": {**PRIMARY, "better": "lower"}}, "better higher, not lower"),
        ({"primary": {**PRIMARY, "margin": 0.1}}, "superior, which has no margin"),
        ({"primary": {"metric": "mrr@10", "rule": "non-inferior"}}, "within which margin"),
        ({"primary": {"metric": "mrr@10", "rule": "non-inferior", "margin": -1}}, "'mrr@10'.*margin above 0"),
        ({"primary": PRIMARY, "error_rate": 0.9}, "error rate lies between"),
        ({"primary": PRIMARY, "error_rate": True}, "'error_rate' is True"),
        ({"primary": PRIMARY, "guard": [PRIMARY]}, "both the primary metric and a guard"),
        (
            {"primary": PRIMARY, "guard": [{"metric": "mrr@10", "rule": "superior"}] * 2},
            "'mrr@10' is a guard twice",
        ),
        ({"primary": PRIMARY, "ceiling": [{"metric": "ndcg@10", "at_most": 1}]}, "forbids what is good.*floor"),
        ({"primary": PRIMARY, "floor": [{"metric": "latency_ms", "at_least": 1}]}, "forbids what is good.*ceiling"),
        ({"primary": PRIMARY, "ceiling": [{"metric": "usd", "at_most": 1}] * 2}, "two limits of one kind"),
        (
            {
                "primary": PRIMARY,
                "ceiling": [{"metric": "x", "at_most": 1}],
                "floor": [{"metric": "x", "at_least": 2}],
            },
            "nothing can be both",
        ),
        ({"primary": PRIMARY, "ceiling": [{"metric": "usd", "at_most": float("nan")}]}, "needs one number"),
        ({"primary": PRIMARY, "slices": {"by": []}}, "slices are by nothing"),
        ({"primary": PRIMARY, "slices": {"by": ["a"], "rule": "non-inferior"}}, "margin above 0"),
        ({"primary": PRIMARY, "slices": {"by": ["a"], "min_items": 1}}, "cannot be tested"),
        ({"primary": PRIMARY, "error_limit": 1.5}, "share of errors"),
    ],
)
def test_what_is_wrong_is_named_with_its_file(values: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=f"(?s)^p.toml: .*{message}"):
        policy_from(values, where="p.toml")


def test_a_file_that_is_no_file_or_no_toml(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        read_policy(tmp_path / "none.toml")
    with pytest.raises(ConfigError, match="not valid TOML"):
        read_policy(write(tmp_path, "[primary\n"))


def test_a_metric_of_ones_own_says_its_direction() -> None:
    policy = policy_from({"primary": {"metric": "charm", "rule": "superior", "better": "lower"}})
    assert policy.rule == superiority(better="lower")
    assert policy_from({"primary": {"metric": "charm", "rule": "superior"}}, known={"charm": "lower"}) == policy


def test_slices_of_another_metric_take_its_direction() -> None:
    values = {"primary": PRIMARY, "slices": {"by": ["x"], "metric": "latency_ms", "rule": "non-inferior", "margin": 9}}
    policy = policy_from(values)
    assert policy.slices == SliceRule(("x",), "non-inferiority", 9.0, "latency_ms", "lower")
    assert policy.metrics == ("ndcg@10", "latency_ms")


def test_metrics_that_nobody_measured_are_named_with_the_nearest() -> None:
    policy = Policy("f1", guards={"latency": non_inferiority(20, better="lower")})
    with pytest.raises(InputError, match=r"metric 'latency'.*\n.*'latency_ms'"):
        policy.check_metrics(["f1", "latency_ms"])
    policy.check_metrics(["latency", "f1"])
