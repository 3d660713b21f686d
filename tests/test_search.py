"""Selection of settings: equal budgets, a split of its own, and bad input that is refused before anything starts."""

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from mlbench import planner, search, selection, shootout, verbs
from mlbench.errors import JobError, UserError
from tests.conftest import Bench

SFT = {"use": "sft", "search": {"benign": [True, False], "training.learning_rate": [1e-3, 1e-2, 1e-1]}}
DPO = {"use": "dpo", "search": {"beta": [0.05, 0.1, 0.2, 0.4]}}


def with_selection(bench: Bench, **changes: Any) -> Path:
    settings: dict[str, Any] = {
        "methods": ["none", SFT, DPO],
        "select": {"trials": 3, "rule": "min asr subject to invalid <= none + 100"},
    }
    return bench.write(**settings | changes)


def loaded(bench: Bench, **changes: Any) -> shootout.Loaded:
    found = shootout.load(with_selection(bench, **changes))
    planner.make(found)  # registers the plugin files
    return found


def test_every_searched_method_gets_the_same_number_of_different_trials(bench: Bench) -> None:
    made = loaded(bench)
    for index, size in ((1, 6), (2, 4)):
        tried = search.trials(made, index)
        assert len({json.dumps(values) for values in tried}) == 3 <= size
        assert tried == search.trials(made, index)
    assert {json.dumps(values) for values in search.trials(loaded(bench, select={"trials": 4, "seed": 1}), 2)} == {
        json.dumps({"beta": beta}) for beta in (0.05, 0.1, 0.2, 0.4)
    }


def test_the_trials_are_asked_the_development_split_in_training_languages_only(bench: Bench) -> None:
    stage = planner.make(search.stage(loaded(bench)))
    assert list(stage.methods) == ["none", *(f"{name}.trial-{n}" for name in ("sft", "dpo") for n in range(3))]
    assert stage.languages == ("en", "xa")  # xb is unseen
    assert {prompt.id[:4] for prompts in stage.prompts.values() for prompt in prompts} == {"dev-"}
    assert {cell.seed for cell in stage.cells} == {1000}
    values = search.trials(loaded(bench), 1)[0]
    link = stage.methods["sft.trial-0"][0]
    assert (link["fields"]["benign"], link["training"]["learning_rate"]) == tuple(values.values())


def test_the_final_plan_has_the_chosen_values_and_the_test_split(bench: Bench) -> None:
    made = planner.make(search.settled(loaded(bench), {"sft": {"benign": False}, "dpo": {"beta": 0.4}}))
    assert list(made.methods) == ["none", "sft", "dpo"]
    assert made.methods["sft"][0]["fields"]["benign"] is False
    assert made.methods["dpo"][0]["fields"]["beta"] == 0.4
    assert not [prompt.id for prompts in made.prompts.values() for prompt in prompts if prompt.id.startswith("dev-")]


def test_a_search_in_a_chain_says_which_link_it_means(bench: Bench) -> None:
    chain = {"use": ["sft", "dpo"], "name": "both", "search": {"dpo.beta": [0.1, 0.2], "training.steps": [1]}}
    made = loaded(bench, methods=["none", chain], select={"trials": 2, "rule": "min asr"})
    entry = search.settled(made, {"both": {"dpo.beta": 0.2, "training.steps": 1}}).settings.methods[1]
    assert [link.fields for link in entry.use] == [{}, {"beta": 0.2}]
    assert entry.training == {"steps": 1}
    with pytest.raises(UserError, match="does not say which method of the chain"):
        search.settled(made, {"both": {"beta": 0.2}})


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"select": None}, "`search` needs `select`"),
        ({"methods": ["none", "sft"]}, "nothing to select"),
        ({"select": {"trials": 5, "rule": "min asr"}}, "has 4 combinations, fewer than the 5 trials"),
        ({"select": {"trials": 1, "rule": "best"}}, "should read like"),
        ({"select": {"trials": 1, "rule": "min asr subject to utility >= nope"}}, "refers to 'nope'"),
        ({"select": {"trials": 1, "rule": "min asr subject to utility >= sft"}}, "is itself searched"),
        ({"select": {"trials": 1, "split": "test", "rule": "min asr"}}, "on which settings are selected"),
        ({"select": {"trials": 1, "split": "devel", "rule": "min asr"}}, "got 'devel'"),
        ({"methods": ["none", {"use": "dpo", "search": {"bete": [0.1]}}], "select": {"trials": 1, "rule": "min asr"}},
         "unknown key 'bete'"),
        ({"methods": ["none", {"use": "dpo", "search": {"beta": [-1.0]}}], "select": {"trials": 1, "rule": "min asr"}},
         "greater than 0"),
        ({"methods": ["none", {"use": "dpo", "search": {"beta": []}}], "select": {"trials": 1, "rule": "min asr"}},
         "must not be empty"),
    ],
)  # fmt: skip
def test_bad_selections_are_refused_while_planning(bench: Bench, changes: dict[str, Any], says: str) -> None:
    path = with_selection(bench, **changes)
    with pytest.raises(UserError) as caught:
        verbs.make_plan(path)
    assert says in str(caught.value)
    assert str(caught.value.where).startswith(str(path))
    assert not (bench.folder / "run").exists()


def ranking(**asr: float) -> pd.DataFrame:
    lines = [
        {"method": label, "asr": rate, "over_refusal": 0.0, "utility": 0.9, "invalid": 0.0}
        for label, rate in asr.items()
    ]
    return pd.DataFrame(lines)  # fmt: skip


def test_the_log_holds_every_trial_and_the_choice(bench: Bench) -> None:
    names = {f"sft.trial-{n}": rate for n, rate in enumerate((0.3, 0.1, float("nan")))}
    names |= {f"dpo.trial-{n}": 0.2 for n in range(3)}
    log = selection.choose(loaded(bench), ranking(none=0.7, **names))
    assert log["methods"]["sft"]["chosen"] == 1
    assert [trial["scores"] and trial["scores"]["asr"] for trial in log["methods"]["sft"]["trials"]] == [
        30.0,
        10.0,
        None,
    ]
    assert log["methods"]["dpo"]["chosen"] == 0  # of equals the first
    assert log["fixed"] == ["none"]
    assert selection.values(log)["sft"] == search.trials(loaded(bench), 1)[1]


def test_a_method_whose_trials_all_failed_ends_the_selection_with_its_name(bench: Bench) -> None:
    names = {f"sft.trial-{n}": 0.2 for n in range(3)} | {f"dpo.trial-{n}": float("nan") for n in range(3)}
    with pytest.raises(JobError, match="'dpo' cannot be selected: every trial has failed"):
        selection.choose(loaded(bench), ranking(none=0.7, **names))


def test_selection_runs_once_and_its_choice_is_in_the_report(bench: Bench) -> None:
    path = with_selection(bench, methods=["none", SFT], select={"trials": 2, "rule": "min asr"})
    first = verbs.run(path, inline=True)
    assert first.exit_code == 0
    log = json.loads((first.folder / "selection.json").read_text())
    chosen = log["methods"]["sft"]["trials"][log["methods"]["sft"]["chosen"]]["values"]
    plan = json.loads((first.folder / "plan.json").read_text())
    assert plan["methods"]["sft"][0]["fields"]["benign"] == chosen["benign"]
    assert plan["methods"]["sft"][0]["training"]["learning_rate"] == chosen["training.learning_rate"]
    assert "Selected settings" in first.report["report.html"].read_text()
    assert verbs.run(path, inline=True).ran == 0
