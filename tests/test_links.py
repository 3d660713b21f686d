"""Methods as a shootout names them: presets, chains, budgets, and what is refused before anything starts."""

from pathlib import Path
from typing import Any

import pytest

from mlbench import links, planner, plugins, shootout, verbs
from mlbench.errors import UserError
from tests.conftest import Bench

PRESETS = '''
"""A method with presets."""

from typing import Annotated, ClassVar

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

from mlbench.core import Preset
from mlbench.errors import ConfigError


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class Tuned:
    paper: ClassVar[str] = "none"
    fidelity: ClassVar[str] = "reconstruction"
    presets = {
        "released": Preset(note="as released", fields={"beta": 2.0}, training={"steps": 9, "learning_rate": 6e-7}),
    }
    needs: ClassVar[frozenset] = frozenset()
    beta: Annotated[float, Field(gt=0)] = 1.0
    on: str = "sft"

    @property
    def builds_on(self):
        return (self.on,)

    def check(self, corpus, shape):
        if shape is not None and self.beta > shape.layers:
            raise ConfigError(f"beta {self.beta} is more than {shape.layers} layers")

    def align(self, start, corpus, run):
        return start


plugin = Tuned
'''

PROMPT = '''
"""A system prompt."""

from typing import ClassVar

from pydantic import ConfigDict
from pydantic.dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class Polite:
    paper: ClassVar[str] = "none"
    effect: ClassVar[str] = "prompt"
    needs: ClassVar[frozenset] = frozenset()

    def align(self, start, corpus, run):
        return start


plugin = Polite
'''


@pytest.fixture
def loaded(bench: Bench) -> Any:
    """Return a function that loads a shootout over the two plugins above."""
    for name, text in (("tuned", PRESETS), ("polite", PROMPT)):
        (bench.folder / f"{name}.py").write_text(text, encoding="utf-8")
    files = [f"method:{bench.folder / name}.py" for name in ("tuned", "polite")]

    def load(methods: list[Any], **changes: Any) -> shootout.Loaded:
        settings = {"plugins": bench.plugins(*files), "baseline": "none"} | changes
        return shootout.load(bench.write(methods=["none", *methods], **settings))

    return load


def test_a_preset_fills_fields_and_what_the_file_names_wins(loaded: Any) -> None:
    made = loaded(
        ["tuned[released]", {"use": "tuned[released]", "name": "own", "with": {"beta": 1.5}, "training": {"steps": 3}}],
        training={"batch_size": 4, "learning_rate": 0.5},
    )
    plan = planner.make(made)
    released, own = plan.methods["tuned[released]"][0], plan.methods["own"][0]
    assert (released["preset"], released["fields"]["beta"]) == ("released", 2.0)
    # The learning rate is the file's, the steps are the preset's.
    assert (released["training"]["learning_rate"], released["training"]["steps"]) == (0.5, 9)
    assert (own["fields"]["beta"], own["training"]["steps"]) == (1.5, 3)


def test_equal_settings_are_one_job_whatever_they_are_called(loaded: Any) -> None:
    plan = planner.make(loaded(["tuned[released]", {"use": "tuned", "name": "by-hand", "with": {"beta": 2.0}}],
                               training={"steps": 9, "learning_rate": 6e-7}))  # fmt: skip
    keys = {cell.chain for cell in plan.cells if cell.method != "none"}
    assert len(keys) == 1


@pytest.mark.parametrize(
    ("methods", "says"),
    [
        (["tuned[releasd]"], "has no preset 'releasd'\n  did you mean 'released'?\n  allowed: released"),
        (["none[x]"], "'none' has no presets"),
        (["tuned[released"], "should be a method's name, or name[preset], got 'tuned[released'"),
        (["tunedd[released]"], "unknown method 'tunedd'"),
        ([{"use": ["tuned", "polite"]}], "ends in a system prompt"),
        ([{"use": "tuned", "with": {"beta": 3.0}}], "beta 3.0 is more than 2 layers"),
        ([{"use": "tuned", "with": {"on": "nope"}}], "unknown method 'nope'"),
        ([{"use": "tuned", "training": {"lora_rank": 33}}], "lora_rank = 33 is larger than the width of the model, 32"),
    ],
)
def test_what_does_not_fit_is_refused_with_its_place(loaded: Any, methods: list[Any], says: str, bench: Bench) -> None:
    with pytest.raises(UserError) as caught:
        planner.make(loaded(methods))
    assert says in str(caught.value)
    assert caught.value.where.line == 3  # `methods` is the third key of the file
    assert not (bench.folder / "run").exists()


def test_a_prompt_may_come_first_in_a_chain(loaded: Any) -> None:
    plan = planner.make(loaded([{"use": ["polite", "tuned"]}]))
    cell = next(cell for cell in plan.cells if cell.method == "polite+tuned")
    assert [plan.jobs[key].spec["method"] for key in cell.chain] == ["polite", "tuned"]
    assert plan.jobs[cell.chain[1]].spec["start"] == cell.chain[0]
    # A prompt depends on neither seed nor budget.
    assert (plan.jobs[cell.chain[0]].spec["seed"], plan.jobs[cell.chain[0]].spec["training"]) == (0, None)


def test_the_code_a_method_builds_on_is_part_of_its_job(loaded: Any) -> None:
    found = links.chain(planner.make(loaded(["tuned"])).shootout, 1)[0].data
    assert found["bases"] == {"sft": plugins.source_hash("method", "sft")}


def test_a_model_may_have_a_pivot_of_its_own(loaded: Any, bench: Bench) -> None:
    model = {"source": str(bench.folder / "model"), "pivot": "xa"}
    plan = planner.make(loaded(["sft"], models=[model]))
    spec = next(job.spec for job in plan.jobs.values() if job.spec.get("method") == "sft")
    assert {row.language for row in plan.corpora[spec["corpus"]].examples} == {"xa"}
    with pytest.raises(UserError, match=r"models\[0\].pivot: the pivot 'xb' is not trained on"):
        planner.make(loaded(["sft"], models=[model | {"pivot": "xb"}]))


def test_a_reconstruction_is_marked_wherever_its_results_are(loaded: Any, bench: Bench) -> None:
    loaded(["tuned"])
    outcome = verbs.run(bench.folder / "tiny.yaml", inline=True)
    assert outcome.results is not None
    assert set(outcome.results.ranking["method"]) == {"none", "tuned (reconstruction)"}
    for name in ("report.html", "report.md", "ranking.csv", "cells.csv"):
        assert "tuned (reconstruction)" in Path(outcome.report[name]).read_text(encoding="utf-8")


def test_methods_that_train_longer_than_the_baseline_are_named(loaded: Any) -> None:
    longer = {"use": "sft", "name": "longer", "training": {"steps": 5}}
    plan = planner.make(loaded(["sft", longer, {"use": "sft", "name": "same"}], baseline="sft"))
    assert "rows trained on differ from the baseline's 8: longer 20" in plan.notes
    # An untouched baseline trains on nothing: there is no budget to compare with.
    assert not [note for note in planner.make(loaded(["sft", longer])).notes if "rows trained" in note]
