"""Trials on live traffic: what ends them, what promotes, what decides nothing, and the history they leave."""

from __future__ import annotations

import random
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from traffic import BEGAN, TASK, seen_of, serve, trial, variant

from windlass.core.errors import InputError, NotFound, WorkspaceBusy
from windlass.core.workspace import Workspace
from windlass.evaluate.gate import Limit, Rule, non_inferiority, superiority
from windlass.evaluate.moments import Moments
from windlass.evaluate.policy import Policy, SliceRule
from windlass.loop.releasing import watching
from windlass.loop.releasing.assigning import arm_of
from windlass.loop.releasing.bandit import thompson_shares
from windlass.loop.releasing.counting import Count
from windlass.loop.releasing.measuring import Seen
from windlass.loop.releasing.releases import live_variant, promote, rollback
from windlass.loop.releasing.showing import adjusted, rendered
from windlass.loop.releasing.trial import Followed, State, begin, change_shares, end, must_run, running, states
from windlass.loop.releasing.watching import peek, promote_winner, watch, with_shares

NO_MORE_FAILURES = Policy("failed", Rule("non-inferiority", 0.05, "lower", min_items=50))
SLOWER = Rule("non-inferiority", 0.1, "lower", relative=True)
BETTER = Policy("feedback", superiority(), {"failed": non_inferiority(0.05, better="lower")})


@pytest.fixture
def ws(tmp_path: Path) -> Iterator[Workspace]:
    with Workspace(tmp_path) as made:
        yield made


def users(first: int, count: int) -> list[str]:
    return [f"user-{n}" for n in range(first, first + count)]


def test_a_violated_guard_ends_the_trial_by_itself(ws: Workspace) -> None:
    state, chance = trial(ws, NO_MORE_FAILURES), random.Random(1)
    bad = state.trial.candidates[0]
    for step in range(20):
        serve(ws, users(step * 40, 40), lambda arm, c: (c.random() < (0.4 if arm == bad else 0.01), 10, None), chance)
        state = watch(ws, TASK)
        if not state.running:
            break
    assert state.outcome == "rolled back" and "failed changes by" in state.reason
    assert len(state.looks) < 12, "long before all of the traffic came"
    assert live_variant(ws, TASK).digest == state.trial.incumbent and running(ws, TASK) is None
    assert "rolled back" in rendered(ws, state)
    with pytest.raises(NotFound, match=r"No trial of 'assistant' runs"):
        watch(ws, TASK)


def test_a_watcher_looks_by_itself_and_says_what_came_of_it(ws: Workspace) -> None:
    state, chance = trial(ws, NO_MORE_FAILURES), random.Random(1)
    bad = state.trial.candidates[0]
    serve(ws, users(0, 800), lambda arm, c: (c.random() < (0.4 if arm == bad else 0.01), 10, None), chance)
    said, heard = [], threading.Event()

    def tell(line: str) -> None:
        said.append(line)
        heard.set()

    watcher = watching.Watcher(ws, every=0.02, tell=tell)
    try:
        assert heard.wait(30)
    finally:
        watcher.close()
    assert said[0].startswith("trial of 'assistant' rolled back: ") and len(said) == 1
    assert running(ws, TASK) is None and states(ws, TASK)[0].outcome == "rolled back"


def test_a_better_candidate_goes_live_by_itself(ws: Workspace) -> None:
    state, chance = trial(ws, BETTER, promotes=True, planned=800), random.Random(2)
    (good,) = state.trial.candidates
    for step in range(30):
        serve(
            ws,
            users(step * 40, 40),
            lambda arm, c: (False, 10, float(c.random() < (0.8 if arm == good else 0.4))),
            chance,
        )
        state = watch(ws, TASK)
        if not state.running:
            break
    assert state.outcome == "promoted" and state.winner == good == live_variant(ws, TASK).digest
    (before, now) = (line for line in rendered(ws, state).splitlines() if line.startswith("assistant@"))
    assert now.endswith("GO, went live") and "live" not in before
    assert rollback(ws, TASK).variant == state.trial.incumbent


def test_equal_variants_are_promoted_no_oftener_than_stated(ws: Workspace) -> None:
    """Looked at after each 25 users; the policy's error rate is 0.1."""
    state = trial(ws, Policy("feedback", superiority(error_rate=0.1)), planned=300)
    assert promoted_of(state, 60, steps=12, share=lambda step: 0.5, happy=lambda step: 0.5) <= 14, (
        "6 are expected of 60 at most, and 15 or more in one of a thousand repetitions"
    )


def test_a_share_that_grows_while_users_become_happier_promotes_nobody(ws: Workspace) -> None:
    """As they come, four of five late users are the candidate's, and one of ten early ones: by plain means it looks
    far better than its equal."""
    state = trial(ws, Policy("feedback", superiority(error_rate=0.1)), planned=600, share=0.1)
    state = change_shares(ws, state, with_shares(state, {state.trial.candidates[0]: 0.8}), "more", BEGAN + 1)

    def grows(step: int) -> float:
        return 0.1 if step < 12 else 0.8

    assert promoted_of(state, 40, steps=24, share=grows, happy=lambda step: 0.2 + 0.6 * step / 24) <= 11


def promoted_of(
    state: State, seeds: int, *, steps: int, share: Callable[[int], float], happy: Callable[[int], float]
) -> int:
    """How many of so many trials of equal variants, looked at after each 25 users, say GO at any look."""
    live, new = state.trial.arms
    promoted = 0
    for seed in range(seeds):
        chance, sums = random.Random(seed), {live: Moments(), new: Moments()}
        came: dict[str, Counter[float]] = {live: Counter(), new: Counter()}
        for step in range(steps):
            shares = {live: 1 - share(step), new: share(step)}
            for user in users(step * 25, 25):
                arm = arm_of(str(seed), user, shares)
                sums[arm] += Moments.of(float(chance.random() < happy(step)), shares[arm])
                came[arm][shares[arm]] += 1
            values = {arm: {"feedback": one} for arm, one in sums.items()}
            found = Seen({arm: one.n for arm, one in sums.items()}, {}, values, came)
            if watching.verdict(state, found, new).decision == "GO":
                promoted += 1
                break
    return promoted


def test_lost_traffic_decides_nothing(ws: Workspace) -> None:
    state = trial(ws, Policy("feedback", superiority()))
    live, good = state.trial.arms
    for lost, decision in ((0, "GO"), (600, "INCONCLUSIVE")):
        arms = ((live, 3000, 0.3), (good, 3000 - lost, 0.9))
        values = {
            arm: {f"{arm}{n}": {"feedback": float(n < n_of * won)} for n in range(n_of)} for arm, n_of, won in arms
        }
        said = watching.verdict(state, seen_of(values, state.shares), good)
        assert said.decision == decision and ("sample-ratio mismatch" in said.reason) == bool(lost)


def test_traffic_that_is_lost_after_a_share_grew_is_noticed(ws: Workspace) -> None:
    """Arms whose shares changed were held to no share any more."""
    for lost in (0.0, 0.5):
        state, chance = trial(ws, NO_MORE_FAILURES, share=0.1, planned=4000), random.Random(3)
        (new,) = state.trial.candidates
        serve(ws, users(0, 200), lambda arm, c: (False, 10, None), chance)
        state = change_shares(ws, state, with_shares(state, {new: 0.5}), "more", BEGAN + 20)

        def lose(arm: str, new: str = new, lost: float = lost, chance: random.Random = chance) -> bool:
            return arm == new and chance.random() < lost

        serve(ws, users(200, 1200), lambda arm, c: (False, 10, None), chance, lose=lose, at=BEGAN + 30)
        state = watch(ws, TASK)
        assert ("sample-ratio mismatch" in state.looks[-1].reasons[new]) == bool(lost), state.looks[-1].reasons
        end(ws, state, "stopped", "", BEGAN + 40)
        rollback_to_nothing(ws)


def rollback_to_nothing(ws: Workspace) -> None:
    """What is live goes, so that another first release may come."""
    with ws.store.database.write() as db:  # type: ignore[attr-defined]
        db.execute("DELETE FROM releases")


def test_a_user_who_is_moved_counts_where_he_was_first(ws: Workspace) -> None:
    state, chance = trial(ws, NO_MORE_FAILURES, share=0.1), random.Random(5)
    (new,) = state.trial.candidates
    serve(ws, users(0, 300), lambda arm, c: (False, 10, None), chance)
    before = columns(ws, state)
    state = change_shares(ws, state, with_shares(state, {new: 0.5}), "more", BEGAN + 20)
    serve(ws, users(0, 300), lambda arm, c: (False, 99, None), chance, at=BEGAN + 30)
    assert columns(ws, state) == before
    kept = [unit for unit in users(0, 300) if arm_of(state.trial.id, unit, state.shares) == new]
    assert before[new] <= set(kept), "and those who had the candidate have it still"
    assert "sample-ratio" not in watch(ws, TASK).looks[-1].reasons[new], "shares that changed are no mismatch"


def columns(ws: Workspace, state: State) -> dict[str, set[str]]:
    with Count(ws, state.trial) as count:
        count.update()
        return {arm: set(count.column(arm, "failed")) for arm in state.trial.arms}


def test_several_candidates_are_taken_away_one_by_one(ws: Workspace) -> None:
    state, chance = trial(ws, NO_MORE_FAILURES, share=0.3, candidates=2, planned=600), random.Random(6)
    bad, good = state.trial.candidates
    serve(ws, users(0, 600), lambda arm, c: (c.random() < (0.5 if arm == bad else 0.01), 10, None), chance)
    state = watch(ws, TASK)
    assert state.running and state.shares == {state.trial.incumbent: 0.7, bad: 0.0, good: 0.3}
    assert "assistant@2: failed changes by" in state.changes[-1][2]
    state = promote_winner(ws, state, good, "by hand", BEGAN + 50)
    assert live_variant(ws, TASK).digest == good and state.outcome == "promoted"


def test_cuped_takes_out_what_users_were_like_before(ws: Workspace) -> None:
    chance = random.Random(7)
    slow = {user: chance.gauss(100, 30) for user in users(0, 400)}
    state = trial(ws, Policy("latency_ms", non_inferiority(5, better="lower")))
    (new,) = state.trial.candidates
    assert adjusted(ws, state, new) is None, "nobody was there before"
    for user, usual in slow.items():
        for at in (BEGAN - 1000, BEGAN + 10):
            serve(ws, [user], lambda arm, c, usual=usual: (False, max(1.0, usual + c.gauss(0, 5)), None), chance, at=at)
    found = adjusted(ws, state, new)
    assert found is not None and found.reduction > 0.9
    assert found.difference.high - found.difference.low < 0.4 * (found.plain.high - found.plain.low)


def test_the_history_survives_and_two_who_decide_are_told_apart(ws: Workspace) -> None:
    state = trial(ws, NO_MORE_FAILURES)
    (new,) = state.trial.candidates
    followed = Followed(ws, TASK)
    assert followed.running() == state
    change_shares(ws, state, with_shares(state, {new: 0.2}), "less", BEGAN + 1)
    with pytest.raises(WorkspaceBusy):
        end(ws, state, "stopped", "too late", BEGAN + 2)
    again = must_run(ws, TASK)
    assert followed.running() == again and again.shares[new] == 0.2 and [c[2] for c in again.changes] == ["", "less"]
    with pytest.raises(InputError, match="runs already"):
        begin(ws, state.trial, state.shares)
    for shares in ({new: 0.5}, {new: 1.2, state.trial.incumbent: -0.2}, {new: 0.5, state.trial.incumbent: 0.6}):
        with pytest.raises(InputError, match="share"):
            change_shares(ws, again, shares, "", BEGAN + 3)
    end(ws, again, "stopped", "enough", BEGAN + 4)
    assert followed.running() is None and states(ws, TASK)[0].reason == "enough"


@pytest.mark.parametrize(
    "policy",
    [
        Policy("failed", Rule("non-inferiority", 0.02, "lower"), {"latency_ms": replace(SLOWER, statistic="p95")}),
        Policy("failed", Rule("non-inferiority", 0.02, "lower"), limits=(Limit("latency_ms", 900, statistic="p99"),)),
        Policy("failed", Rule("non-inferiority", 0.02, "lower"), slices=SliceRule(["language"])),
    ],
)
def test_a_policy_that_live_traffic_cannot_answer_is_refused_at_the_start(ws: Workspace, policy: Policy) -> None:
    """Not at every look, in a log that nobody reads, while the guard protects nobody."""
    with pytest.raises(InputError, match=r"The policy asks for (p95|p99|slices)"):
        trial(ws, policy)


def test_shares_of_one_stay_within_one(ws: Workspace) -> None:
    state, chance = trial(ws, NO_MORE_FAILURES), random.Random(1)
    serve(ws, users(0, 200), lambda arm, c: (c.random() < 0.01, 10, None), chance)
    state = watch(ws, TASK)
    said = [state.looks[-1].means[arm]["failed"] for arm in state.trial.arms]
    assert all(0.0 == one["low"] <= one["estimate"] <= one["high"] <= 1.0 for one in said)
    assert "What must hold: failed at most 0.05 worse." in rendered(ws, state)


def test_before_the_first_interval_nothing_is_said_to_be_hopeless(ws: Workspace) -> None:
    """An interval that nothing bounds was read as "no practical number of items would tell"."""
    trial(ws, NO_MORE_FAILURES, share=0.05)
    serve(ws, users(0, 200), lambda arm, c: (False, 10, None), random.Random(1))
    text = rendered(ws, watch(ws, TASK))
    assert "so far, and the first interval takes 30" in text and "inf" not in text and "practical" not in text


def test_who_had_no_share_does_not_come_back(ws: Workspace) -> None:
    state = trial(ws, NO_MORE_FAILURES, share=0.3, candidates=2)
    one, other = state.trial.candidates
    with pytest.raises(InputError, match="No candidate would be left"):
        change_shares(ws, state, with_shares(state, {one: 0.0, other: 0.0}), "", BEGAN + 1)
    with pytest.raises(InputError, match="compared with nobody"):
        change_shares(ws, state, with_shares(state, {one: 0.7}), "", BEGAN + 1)
    state = change_shares(ws, state, with_shares(state, {one: 0.0}), "out", BEGAN + 1)
    with pytest.raises(InputError, match="is out of this trial"):
        change_shares(ws, state, with_shares(state, {one: 0.3}), "", BEGAN + 2)
    end(ws, state, "stopped", "", BEGAN + 3)
    with pytest.raises(InputError, match="compared with nobody"):
        begin(ws, state.trial, {state.trial.incumbent: 0.0, one: 0.5, other: 0.5})


def test_a_candidate_that_is_out_wins_nothing(ws: Workspace) -> None:
    state, chance = trial(ws, BETTER, share=0.3, candidates=2, promotes=True, planned=600), random.Random(3)
    good = state.trial.candidates[0]
    serve(ws, users(0, 600), lambda arm, c: (False, 10, float(c.random() < (0.9 if arm == good else 0.4))), chance)
    change_shares(ws, state, with_shares(state, {good: 0.0}), "asked for by support", BEGAN + 20)
    state = watch(ws, TASK)
    assert state.running and state.shares[good] == 0 and live_variant(ws, TASK).digest == state.trial.incumbent
    assert "taken out by hand" in state.looks[-1].reasons[good]


def test_looks_that_tell_nothing_new_are_not_kept(ws: Workspace) -> None:
    """Or a month of looks, all of which each look reads, would be 86,400 of them."""
    trial(ws, NO_MORE_FAILURES)
    chance, served = random.Random(4), 0
    for more, kept in ((500, 1), (0, 1), (2, 1), (2, 1), (2, 2), (300, 3)):
        serve(ws, users(served, more), lambda arm, c: (False, 10, None), chance)
        served += more
        state = watch(ws, TASK)
        assert sum(state.looks[-1].units.values()) == served, "what is shown is of now"
        assert len(states(ws, TASK)[0].looks) == kept


def test_a_watcher_outlives_whatever_goes_wrong_in_a_look(ws: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    state, chance = trial(ws, NO_MORE_FAILURES), random.Random(1)
    bad = state.trial.candidates[0]
    serve(ws, users(0, 800), lambda arm, c: (c.random() < (0.4 if arm == bad else 0.01), 10, None), chance)
    said, looks, ended = [], 0, threading.Event()

    def fails_twice(ws: Workspace, task: str) -> State:
        nonlocal looks
        looks += 1
        if looks < 3:
            raise RuntimeError("no such luck")
        return watch(ws, task)

    def tell(line: str) -> None:
        said.append(line)
        if "rolled back" in line:
            ended.set()

    monkeypatch.setattr(watching, "watch", fails_twice)
    watcher = watching.Watcher(ws, every=0.02, tell=tell)
    try:
        assert ended.wait(30)
    finally:
        watcher.close()
    assert said[0].endswith("RuntimeError: no such luck") and len(said) == 2, "the same is told once"


def test_a_watcher_says_that_a_candidate_may_go_live(ws: Workspace) -> None:
    state, chance = trial(ws, BETTER, planned=800), random.Random(2)
    (good,) = state.trial.candidates
    serve(ws, users(0, 900), lambda arm, c: (False, 10, float(c.random() < (0.8 if arm == good else 0.4))), chance)
    heard = threading.Event()
    said: list[str] = []
    watcher = watching.Watcher(ws, every=0.02, tell=lambda line: (said.append(line), heard.set()))
    try:
        assert heard.wait(30)
    finally:
        watcher.close()
    assert said == ["trial of 'assistant': assistant@2 may go live: windlass canary promote assistant assistant@2"]


def test_what_is_promoted_meanwhile_stops_the_trial(ws: Workspace) -> None:
    state = trial(ws, NO_MORE_FAILURES)
    promote(ws, TASK, variant(ws, "another"), None, "by hand")
    assert watch(ws, TASK).outcome == "stopped"
    assert "live was changed" in states(ws, TASK)[0].reason and state.trial.id == states(ws, TASK)[0].trial.id


def test_killed_between_promotion_and_its_note_the_next_look_notes_it(
    ws: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = trial(ws, NO_MORE_FAILURES)
    (new,) = state.trial.candidates
    with monkeypatch.context() as patched:
        patched.setattr(watching, "end", _killed)
        with pytest.raises(KeyboardInterrupt):
            promote_winner(ws, state, new, "better", BEGAN + 1)
    assert live_variant(ws, TASK).digest == new
    done = watch(ws, TASK)
    assert (done.outcome, done.winner, done.reason) == ("promoted", new, "better")


def _killed(*_: object, **__: object) -> None:
    raise KeyboardInterrupt


def test_thompson_shares_follow_rewards_above_a_floor() -> None:
    from windlass.evaluate.online import Tally

    def tally(won: int, of: int) -> Tally:
        return Tally.of([1.0] * won + [0.0] * (of - won))

    even = thompson_shares({"a": Tally(), "b": Tally()}, floor=0.05)
    assert even["a"] == pytest.approx(0.5, abs=0.02) and sum(even.values()) == pytest.approx(1)
    clear = thompson_shares({"a": tally(10, 100), "b": tally(60, 100), "c": tally(20, 100)}, floor=0.05)
    assert clear["b"] == pytest.approx(0.9, abs=0.01) and min(clear.values()) >= 0.05 - 1e-9
    with pytest.raises(InputError, match="cannot keep a share"):
        thompson_shares({"a": Tally(), "b": Tally()}, floor=0.5)
    with pytest.raises(InputError, match="between 0 and 1"):
        thompson_shares({"a": Tally.of([5.0]), "b": Tally()}, floor=0.1)


def test_a_bandit_finds_the_better_arm(ws: Workspace) -> None:
    policy = Policy("feedback", superiority())
    state, chance = trial(ws, policy, kind="bandit", reward="feedback", floor=0.05, planned=10_000), random.Random(9)
    (good,) = state.trial.candidates
    for step in range(10):
        serve(
            ws,
            users(step * 60, 60),
            lambda arm, c: (False, 10, float(c.random() < (0.7 if arm == good else 0.4))),
            chance,
        )
        state = watch(ws, TASK)
    assert state.running and state.shares[good] > 0.8 and state.shares[state.trial.incumbent] >= 0.05 - 1e-9
    assert any(reason == "Thompson sampling" for _, _, reason in state.changes)
    text = rendered(ws, peek(ws, state))
    assert "believe the weighted means" in text and "feedback, weighted" in text and "feedback, as it came" in text
    shown = state.looks[-1].means[good]["feedback"]
    assert f"{shown['estimate']:.3g} [{shown['low']:.3g}, {shown['high']:.3g}]" in text


@pytest.mark.slow
def test_a_process_that_is_killed_leaves_a_whole_history(ws: Workspace, tmp_path: Path) -> None:
    state = trial(ws, NO_MORE_FAILURES)
    code = (
        "import sys\nfrom pathlib import Path\nfrom windlass.core.workspace import Workspace\n"
        "from windlass.loop.releasing.trial import change_shares, must_run\n"
        "ws = Workspace(Path(sys.argv[1]))\nstate = must_run(ws, 'assistant')\nn = 0\n"
        "while True:\n"
        "    n += 1\n"
        "    state = change_shares(ws, state, dict(state.shares), str(n), float(n))\n"
        "    print(n, flush=True)\n"
    )
    for _ in range(3):
        command = [sys.executable, "-c", code, str(tmp_path)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            said = [process.stdout.readline() for _ in range(10)]
            process.kill()
        assert said[-1].strip() == "10"
    changes = must_run(ws, TASK).changes
    assert len(changes) >= 31 and must_run(ws, TASK).last == len(changes)
    assert state.trial.id == must_run(ws, TASK).trial.id
