"""The collapse monitor: what looks broken in a training and in the answers, against the untouched model."""

from __future__ import annotations

import math

import pandas as pd
import pytest

from mlbench.results import compute
from mlbench.results.health import COLUMNS, FEWEST, health, with_losses

from .frames import Behaviour, Grid, jobs, verdicts


def answers(method: str, texts: list[str], **changes: object) -> pd.DataFrame:
    """Return prepared rows of one cell, one per text; "refused" is a refusal."""
    row = {
        "model": "m", "method": method, "seed": 0, "task": "jail", "language": "en", "invalid": 0.0, "truncated": 0.0,
        "unparsed": 0.0, "language_match": 1.0, "tokens": 8, "chance": None,
    }  # fmt: skip
    labels = ["refused" if text == "refused" else "complied_safe" for text in texts]
    return pd.DataFrame([row] * len(texts)).assign(answer_hash=texts, label=labels, **changes)


def training(method: str, seed: int, losses: list[float], **changes: object) -> dict[str, object]:
    return {
        "kind": "align", "status": "done", "model": "m", "method": method, "key": f"{method}{seed}", "seed": seed,
        "weight_change": 0.02, "steps": 60, "curve": losses, **changes,
    }  # fmt: skip


def monitor(rows: list[pd.DataFrame], trainings: list[dict[str, object]]) -> pd.DataFrame:
    """Return the health of methods of which "none" is untouched, with method as the index."""
    curves = {
        str(line["key"]): [{"step": step, "loss": loss} for step, loss in enumerate(line["curve"], start=1)]
        for line in trainings
    }
    table = with_losses(pd.DataFrame(trainings).drop(columns="curve"), curves)
    every = pd.concat(rows, ignore_index=True)
    return health(every, table, list(dict.fromkeys(every["method"])), "none").set_index("method")


VARIED = [f"text {number}" for number in range(20)]


def test_losses_are_means_over_the_first_and_the_last_tenth_of_a_curve():
    # 20 steps: a tenth is two of them, (19 + 18) / 2 and (1 + 0) / 2.
    line = monitor([answers("a", VARIED)], [training("a", 0, [19.0 - step for step in range(20)])]).loc["a"]
    assert (line["loss_first"], line["loss_last"], line["loss_finite"]) == (18.5, 0.5, 1.0)
    assert line["signs"] == ""


def test_the_training_whose_loss_fell_least_is_shown():
    seeds = [training("a", 0, [2.0, 1.0]), training("a", 1, [0.2, 0.4]), training("a", 2, [9.0, 8.0])]
    line = monitor([answers("a", VARIED)], seeds).loc["a"]
    assert (line["loss_first"], line["loss_last"]) == (0.2, 0.4)
    assert line["signs"] == "the loss did not fall"


def test_a_loss_that_is_no_finite_number_outranks_all_others():
    seeds = [training("a", 0, [1.0, 5.0]), training("a", 1, [2.0, math.nan, 1.0])]
    line = monitor([answers("a", VARIED)], seeds).loc["a"]
    assert line["loss_finite"] == 0.0
    assert line["signs"] == "a loss was not a finite number"


def test_a_training_that_changed_no_weight_is_named_and_a_prompt_is_not():
    rows = [answers("a", VARIED), answers("prompt", VARIED)]
    found = monitor(rows, [training("a", 0, [2.0, 1.0], weight_change=0.0), training("prompt", 0, [], steps=0)])
    assert found.loc["a", "signs"] == "no weight changed"
    assert found.loc["prompt", "signs"] == ""
    assert math.isnan(found.loc["prompt", "loss_first"])


def test_refusals_may_be_alike_short_and_in_english():
    # 20 different answers before; afterwards 10 refusals in English and 10 answers of which 4 differ.
    after = ["refused"] * 10 + ["a", "a", "a", "a", "a", "a", "a", "b", "c", "d"]
    match = [0.0] * 10 + [1.0] * 10
    tokens = [2] * 10 + [8] * 10
    rows = [answers("none", VARIED), answers("a", after, language_match=match, tokens=tokens)]
    line = monitor(rows, [training("a", 0, [2.0, 1.0])]).loc["a"]
    assert (line["distinct"], line["language_match"], line["tokens"]) == (0.4, 1.0, 8.0)
    assert line["signs"] == "repeats itself: 40.0 % different answers, 100.0 % before"


def test_few_answers_say_nothing_of_their_variety():
    line = monitor([answers("a", ["same"] * (FEWEST - 1))], [training("a", 0, [2.0, 1.0])]).loc["a"]
    assert math.isnan(line["distinct"])


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"invalid": 0.06}, "6.0 % of the answers invalid"),
        ({"truncated": 0.5}, "50.0 % of the answers cut off"),
        ({"unparsed": 0.02}, "2.0 % of the answers not understood by the judge"),
        ({"language_match": 0.5}, "50.0 % of what is no refusal not in the prompt’s language"),
        ({"tokens": 3}, "answers of 3 tokens, 8 before"),
        ({"tokens": 17}, "answers of 17 tokens, 8 before"),
        ({"invalid": 0.04, "truncated": 0.04, "unparsed": 0.005, "language_match": 0.96, "tokens": 16}, ""),
    ],
)
def test_what_got_worse_than_before_is_said(changes, said):
    rows = [answers("none", VARIED), answers("a", VARIED, **changes)]
    assert monitor(rows, [training("a", 0, [2.0, 1.0])]).loc["a", "signs"] == said


def test_what_was_so_before_is_no_sign():
    rows = [answers("none", VARIED, invalid=0.3, truncated=0.3), answers("a", VARIED, invalid=0.3, truncated=0.3)]
    assert monitor(rows, [training("a", 0, [2.0, 1.0])]).loc["a", "signs"] == ""


def test_choices_are_no_written_answers():
    rows = [answers("a", VARIED), answers("a", ["A"] * 40, chance=0.25, task="quiz")]
    assert monitor(rows, [training("a", 0, [2.0, 1.0])]).loc["a", "distinct"] == 1.0


def test_every_run_has_a_line_per_method_even_without_curves():
    grid = Grid(methods={"none": Behaviour(steps=0), "broken": Behaviour(invalid=0.5)}, seeds=(0, 1))
    found = compute(verdicts(grid), jobs(grid), grid.design()).health
    assert tuple(found.columns) == COLUMNS
    assert list(found["method"]) == ["none", "broken"]
    rows = verdicts(grid)
    share = (rows[(rows["method"] == "broken") & (rows["task"] != "qa")]["label"] == "invalid").mean()
    assert found.set_index("method").loc["broken", "invalid"] == pytest.approx(share)
    assert found["loss_first"].isna().all()
    assert compute(rows, pd.DataFrame(), grid.design()).health["weight_change"].isna().all()
