"""The search for method and K: halving, its choice, its budget, resuming."""

import json
import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import psutil
import pytest
import torch

from training.config import FitConfig, read_config
from training.fitting.candidates import Search
from training.fitting.fit import PreparedData, prepare_log
from training.fitting.search import Choice, Halving, search
from training.fitting.steps import OneByOne, Outcome, SideBySide, Step
from training.fitting.trainer import DivergedError, Trainer

TINY = {"dim": 16, "epochs": 4, "negatives": 50, "hidden": 8, "batch_size": 64}


class Killed(BaseException):
    """Simulates a kill: no code catches it."""


class Scored:
    """Steps whose outcome is a score of the candidate: (recall@50, ndcg@50, distinct share)."""

    def __init__(self, scores: dict[str, tuple[float, float, float]], in_time: int = 99) -> None:
        self.scores, self.in_time = scores, in_time
        self.taken: list[tuple[str, int]] = []

    def take(
        self, steps: Sequence[Step], seconds_left: Callable[[], float]
    ) -> Iterator[tuple[Step, Outcome]]:
        for step in steps:
            if len(self.taken) == self.in_time:
                return
            self.taken.append((step.name, step.until))
            recall, ndcg, share = self.scores[step.name]
            metrics = {"recall@50": recall, "ndcg@50": ndcg, "distinct_share": share}
            failure = "loss is nan" if recall < 0 else None
            yield step, Outcome(step.until, 1.0, metrics, failure is None, failure)


def plan_of(names: Sequence[str], minutes: float = 5, diverse: bool = False) -> Search:
    config = FitConfig(epochs=16)
    return Search(candidates=dict.fromkeys(names, config), minutes=minutes, diverse=diverse)


def choice_of(
    folder: Path, steps: Scored, minutes: float = 5, diverse: bool = False
) -> tuple[str, list[str]]:
    messages: list[str] = []
    halving = Halving(plan_of([*steps.scores], minutes, diverse), folder, messages.append)
    return halving.best(*halving.run(steps)), messages


def test_the_cheap_come_first(tmp_path: Path) -> None:
    """Else a slow one may leave no time for them."""
    slow, fast, computed = (
        read_config(None, {"encoder": encoder, "interests": 1})
        for encoder in ("re4", "transformer", "linear")
    )
    steps = Scored({"slow": (0.1, 0.1, 1), "fast": (0.2, 0.2, 1), "computed": (0.3, 0.3, 1)}, 3)
    candidates = {"slow": slow, "fast": fast, "computed": computed}
    Halving(Search(candidates=candidates, minutes=5), tmp_path, lambda message: None).run(steps)
    assert [name for name, _ in steps.taken] == ["computed", "fast", "slow"]


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """As in the program: several processes of several threads each wait for one another."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def data(planted: Path) -> PreparedData:
    return prepare_log(planted / "interactions.parquet", None, FitConfig())


def real_plan(**settings: object) -> Search:
    counts = {"one": 1, "four": 4, "eight": 8}
    candidates = {
        name: read_config(None, {**TINY, "interests": count, **settings})
        for name, count in counts.items()
    }
    return Search(candidates=candidates, minutes=30)


def values(choice: Choice) -> dict[str, tuple[int, float | None]]:
    return {trial.candidate: (trial.epochs, trial.value) for trial in choice.trials}


def test_the_better_half_goes_on(tmp_path: Path) -> None:
    steps = Scored({f"c{n}": (n / 10, n / 10, 1.0) for n in range(1, 9)})
    assert choice_of(tmp_path, steps)[0] == "c8"
    rounds = [[n for n, until in steps.taken if until == u] for u in (2, 4, 8, 16)]
    assert [sorted(names) for names in rounds] == [
        [f"c{n}" for n in range(1, 9)],
        ["c5", "c6", "c7", "c8"],
        ["c7", "c8"],
        ["c7", "c8"],
    ]
    assert rounds[1][0] == "c8"  # should the time end here, the better ones were compared


@pytest.mark.parametrize(
    ("second", "chosen"),
    [
        ((0.31, 0.21), "second"),
        ((0.31, 0.2), "first"),
        ((0.3, 0.2), "first"),
        ((0.4, 0.19), "first"),
        ((0.29, 0.3), "first"),
    ],
)
def test_a_later_candidate_must_be_better_in_both_recall_and_ndcg(
    tmp_path: Path, second: tuple[float, float], chosen: str
) -> None:
    steps = Scored({"first": (0.3, 0.2, 1.0), "second": (*second, 1.0)})
    assert choice_of(tmp_path, steps)[0] == chosen


def test_a_candidate_that_diverges_is_left_out(tmp_path: Path) -> None:
    bad, good = (-1.0, 0.0, 1.0), (0.1, 0.1, 1.0)
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    assert choice_of(tmp_path / "a", Scored({"bad": bad, "good": good}))[0] == "good"
    with pytest.raises(DivergedError, match="loss is nan"):
        choice_of(tmp_path / "b", Scored({"bad": bad, "worse": bad}))


@pytest.mark.parametrize(("in_time", "chosen"), [(0, "a"), (1, "a"), (3, "c"), (4, "d"), (6, "d")])
def test_when_the_time_is_over_the_best_of_those_compared_is_kept(
    tmp_path: Path, in_time: int, chosen: str
) -> None:
    scores = {name: (n / 10, n / 10, 1.0) for n, name in enumerate("abcd", 1)}
    found, messages = choice_of(tmp_path, Scored(scores, in_time))
    assert found == chosen
    assert "search: the 5 minutes are over" in messages
    too_few = [m for m in messages if "too few to compare two candidates; a is the first" in m]
    assert len(too_few) == (in_time < 2)
    # A run that goes on decides the same, though it has time.
    again = Scored(scores)
    assert choice_of(tmp_path, again)[0] == chosen
    assert again.taken == []


def test_diverse_takes_the_best_whose_lists_differ(tmp_path: Path) -> None:
    scores = {"close": (0.5, 0.5, 0.2), "apart": (0.3, 0.3, 0.6), "wide": (0.2, 0.2, 0.9)}
    for name in ("a", "b", "c"):
        (tmp_path / name).mkdir()
    assert choice_of(tmp_path / "a", Scored(scores))[0] == "close"
    found, messages = choice_of(tmp_path / "b", Scored(scores), diverse=True)
    assert (found, [m for m in messages if "no candidate" in m]) == ("apart", [])
    none = Scored({"close": (0.5, 0.5, 0.2), "closer": (0.4, 0.4, 0.3)})
    found, messages = choice_of(tmp_path / "c", none, diverse=True)
    assert found == "close"
    assert any("share of 0.5, at most 0.30 (closer); the best on" in m for m in messages)


def test_what_is_chosen_is_the_best_of_whole_trainings(data: PreparedData, tmp_path: Path) -> None:
    plan = real_plan()
    folders = {name: tmp_path / f"whole-{name}" for name in plan.candidates}
    whole = {}
    for name, config in plan.candidates.items():
        folders[name].mkdir()
        whole[name] = Trainer(config, data.catalog, data.split, folders[name]).run().metrics
    choice = search(plan, data.catalog, data.split, tmp_path)
    best = max(whole, key=lambda name: whole[name]["recall@50"])
    assert choice.name == best == "eight"  # the planted users have two to four interests
    assert choice.config == plan.candidates["eight"]
    by_name = {trial.candidate: trial for trial in choice.trials}
    assert by_name["eight"].value == whole["eight"]["recall@50"]
    assert (by_name["eight"].epochs, by_name["eight"].result) == (4, "chosen")
    assert sorted(trial.epochs for trial in choice.trials) == [1, 4, 4]
    assert by_name["one"].distinct_share is None
    assert 1 / 8 <= (by_name["eight"].distinct_share or 0) <= 1


def test_a_killed_search_goes_on_and_chooses_the_same(data: PreparedData, tmp_path: Path) -> None:
    plan = real_plan(epochs=2)
    (tmp_path / "once").mkdir()
    (tmp_path / "killed").mkdir()
    once = search(plan, data.catalog, data.split, tmp_path / "once")

    def killed_after(count: int) -> list[str]:
        seen: list[str] = []

        def on_message(message: str) -> None:
            seen.append(message)
            if len(seen) > count:
                raise Killed

        with pytest.raises(Killed):
            search(plan, data.catalog, data.split, tmp_path / "killed", on_message)
        return seen

    first, second = killed_after(2), killed_after(1)
    assert first[1] != second[1]  # what was done is not done again
    again = search(plan, data.catalog, data.split, tmp_path / "killed")
    assert values(again) == values(once)
    assert again.name == once.name
    state = json.loads((tmp_path / "killed" / "search.json").read_text())
    assert state["seconds"] > 0
    assert not state["is_over"]


def test_an_epoch_is_the_last_when_the_time_is_over(data: PreparedData, tmp_path: Path) -> None:
    config = read_config(None, {**TINY, "interests": 1})
    step = Step("one", config, tmp_path / "one", until=3)
    [(_, outcome)] = OneByOne(data.catalog, data.split).take([step], lambda: 1e-9)
    assert (outcome.epochs, outcome.complete) == (1, False)
    assert [*OneByOne(data.catalog, data.split).take([step], lambda: 0.0)] == []
    [(_, outcome)] = OneByOne(data.catalog, data.split).take([step], lambda: 60.0)
    assert (outcome.epochs, outcome.complete) == (3, True)


def test_candidates_trained_side_by_side_are_the_same(data: PreparedData, tmp_path: Path) -> None:
    plan = real_plan(epochs=1)
    (tmp_path / "apart").mkdir()
    (tmp_path / "beside").mkdir()
    alone = search(plan, data.catalog, data.split, tmp_path / "apart", processes=1)
    beside = search(plan, data.catalog, data.split, tmp_path / "beside", processes=2)
    assert values(beside) == values(alone)
    left = [" ".join(child.cmdline()) for child in psutil.Process().children()]
    assert not any("spawn_main" in command for command in left)


def test_a_process_that_is_killed_is_said_to_be(data: PreparedData, tmp_path: Path) -> None:
    config = read_config(None, {**TINY, "interests": 1})
    before = multiprocessing.active_children()
    with SideBySide(1, data.catalog, data.split) as steps:
        (child,) = {*multiprocessing.active_children()} - {*before}
        child.kill()
        with pytest.raises(OSError, match="was killed, as when memory is short; repeat the"):
            [*steps.take([Step("one", config, tmp_path / "one", 1)], lambda: 60.0)]
