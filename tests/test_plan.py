"""Plans: what shares a job, what changes a key, what is refused, and what planning must not import."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from mlbench import plan, planner, shootout
from mlbench.errors import NeedsError

from .conftest import Bench

ROOT = Path(__file__).parents[1]


def made(bench: Bench, **changes: Any) -> plan.Plan:
    return planner.make(shootout.load(bench.write(**changes)))


def keys(found: plan.Plan, kind: str, method: str | None = None) -> set[str]:
    """Return the keys of one kind of job, of one method where it is given."""
    of = {
        "align": lambda cell: cell.chain,
        "answer": lambda cell: [cell.answer_key],
        "judge": lambda cell: [cell.judge_key],
    }
    return {key for cell in found.cells if method in (None, cell.method) for key in of[kind](cell)}


def test_the_graph_is_align_then_answer_then_judge(bench: Bench) -> None:
    found = made(bench)
    assert {kind: len(keys(found, kind)) for kind in ("align", "answer", "judge")} == {
        "align": 2,
        "answer": 6,
        "judge": 6,
    }
    assert len(found.cells) == 2 * 3
    for job in found.jobs.values():
        before = {"align": set(), "answer": {"align"}, "judge": {"answer"}}[job.kind]
        assert {found.jobs[key].kind for key in job.after} == before


def test_planning_twice_gives_the_same_keys(bench: Bench) -> None:
    assert list(made(bench).jobs) == list(made(bench).jobs)


def test_equal_fields_under_two_labels_share_jobs(bench: Bench) -> None:
    found = made(
        bench,
        methods=["sft", {"use": "sft", "name": "again"}, {"use": "sft", "name": "other", "with": {"benign": False}}],
    )
    for kind in ("align", "answer", "judge"):
        assert keys(found, kind, "sft") == keys(found, kind, "again")
        assert not keys(found, kind, "sft") & keys(found, kind, "other")


def test_a_default_written_out_is_the_default(bench: Bench) -> None:
    found = made(
        bench, methods=["sft", {"use": "sft", "name": "again", "with": {"benign": True}, "training": {"steps": 2}}]
    )
    assert keys(found, "align", "sft") == keys(found, "align", "again")


SAME = [
    {"generation": {"max_new_tokens": 4, "batch_size": 1}},
    {"training": {"steps": 2, "batch_size": 4, "learning_rate": 1e-2, "micro_batch": 2}},
    {"schedule": {"cpus": 2, "retries": 0, "timeout_minutes": 1}},
    {"name": "another", "title": "Another"},
    {"statistics": {"resamples": 500}},
    {"out": "elsewhere"},
]


@pytest.mark.parametrize("changes", SAME, ids=lambda changes: next(iter(changes)))
def test_how_and_where_leave_every_key_alone(bench: Bench, changes: dict[str, Any]) -> None:
    assert set(made(bench).jobs) == set(made(bench, **changes).jobs)


def test_the_name_of_a_model_leaves_every_key_alone(bench: Bench) -> None:
    named = made(bench, models=[{"source": str(bench.folder / "model"), "name": "other"}])
    assert set(made(bench).jobs) == set(named.jobs)


OTHER_TRAINING = [
    {"seeds": [1]},
    {"training": {"steps": 3, "batch_size": 4, "learning_rate": 1e-2}},
    {"methods": ["none", {"use": "sft", "with": {"benign": False}, "training": {"lora_rank": 2}}]},
]


@pytest.mark.parametrize("changes", OTHER_TRAINING, ids=["seed", "steps", "field"])
def test_what_training_depends_on_changes_its_key(bench: Bench, changes: dict[str, Any]) -> None:
    before, after = made(bench), made(bench, **changes)
    for kind in ("align", "answer", "judge"):
        assert not keys(before, kind, "sft") & keys(after, kind, "sft")


def test_other_prompts_change_answers_and_verdicts_but_no_training(bench: Bench) -> None:
    before, after = made(bench), made(bench, tasks=[{"use": "requests", "with": {"count": 5}}])
    assert keys(before, "align") == keys(after, "align")
    assert not keys(before, "answer") & keys(after, "answer")


def test_longer_answers_change_answers_but_no_training(bench: Bench) -> None:
    before, after = made(bench), made(bench, generation={"max_new_tokens": 5, "batch_size": 8})
    assert keys(before, "align") == keys(after, "align")
    assert not keys(before, "answer") & keys(after, "answer")


def test_another_judge_changes_verdicts_but_no_answers(bench: Bench) -> None:
    before, after = made(bench), made(bench, tasks=[{"use": "requests", "judge": "choice"}])
    assert keys(before, "answer") == keys(after, "answer")
    assert not keys(before, "judge") & keys(after, "judge")


def test_a_changed_weight_of_the_model_changes_every_key(bench: Bench) -> None:
    before = made(bench)
    weights = bench.folder / "model" / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    assert not set(before.jobs) & set(made(bench).jobs)


def test_moving_the_model_folder_changes_no_key(bench: Bench) -> None:
    before = made(bench)
    (bench.folder / "model").rename(bench.folder / "moved")
    assert set(before.jobs) == set(made(bench, models=[str(bench.folder / "moved")]).jobs)


def test_deterministic_methods_share_jobs_over_seeds_and_others_do_not(bench: Bench) -> None:
    found = made(bench, seeds=[0, 1, 2])
    assert len(keys(found, "align", "none")) == 1
    assert len(keys(found, "align", "sft")) == 3
    assert len([cell for cell in found.cells if cell.method == "none"]) == 3 * 3


def test_the_budget_is_no_part_of_an_untrained_method(bench: Bench) -> None:
    longer = made(bench, training={"steps": 9, "batch_size": 4, "learning_rate": 1e-2})
    assert keys(made(bench), "align", "none") == keys(longer, "align", "none")


def test_a_chain_starts_each_method_from_the_checkpoint_before_it(bench: Bench) -> None:
    found = made(bench, methods=["none", "sft", {"use": ["sft", {"method": "sft", "with": {"benign": False}}]}])
    chain = next(cell.chain for cell in found.cells if cell.method == "sft+sft")
    (alone,) = keys(found, "align", "sft")
    assert chain[0] == alone  # the first step of the chain is the job of the method by itself
    assert found.jobs[chain[1]].spec["start"] == alone
    assert found.jobs[chain[1]].after == (alone,)
    answer = found.jobs[next(cell.answer_key for cell in found.cells if cell.method == "sft+sft")]
    assert answer.spec["checkpoint"] == chain[1]


@pytest.mark.parametrize(
    ("rows", "fields", "need"),
    [
        (
            {"language": "xa", "chosen": None},
            {"languages": "all"},
            "target_preferences: no chosen and rejected answers",
        ),
        ({"harmful": True}, {}, "benign_prompts: no benign rows"),
        ({"rejected": None}, {}, "pivot_preferences: no chosen and rejected answers in the pivot language 'en'"),
    ],
)
def test_a_method_whose_needs_are_not_met_is_refused_by_name_at_its_line(
    bench: Bench, rows: dict[str, Any], fields: dict[str, Any], need: str
) -> None:
    corpus = bench.folder / "corpus.jsonl"
    lines = [json.loads(line) for line in corpus.read_text().splitlines()]
    only = rows.get("language")
    changed = [row | rows if only in (None, row["language"]) else row for row in lines]
    if "language" not in rows:
        changed = [row | rows for row in lines]
    corpus.write_text("".join(json.dumps(row) + "\n" for row in changed))
    with pytest.raises(NeedsError) as caught:
        made(bench, methods=["none", {"use": "sft", "with": fields}])
    assert caught.value.message.startswith("method 'sft' needs what the corpus does not have: ")
    assert need in caught.value.message
    assert str(caught.value.where) == f"{bench.folder / 'tiny.yaml'}:3: methods[1]"


def test_without_a_corpus_only_untrained_methods_can_run(bench: Bench) -> None:
    assert made(bench, corpus=None, methods=["none"]).cells
    with pytest.raises(NeedsError, match="method 'sft' needs what the corpus does not have"):
        made(bench, corpus=None)


def test_unseen_languages_never_enter_a_corpus_and_are_still_asked(bench: Bench) -> None:
    found = made(bench, methods=["none", {"use": "sft", "with": {"languages": "all"}}])
    assert found.corpora
    for corpus in found.corpora.values():
        assert "xb" not in corpus.languages
        assert not corpus.rows("xb")
    assert {cell.language for cell in found.cells if not cell.trained} == {"xb"}


def test_a_method_sees_only_what_it_needs(bench: Bench) -> None:
    found = made(bench, methods=["none", "sft"])
    seen = {job.spec["method"]: found.corpora[job.spec["corpus"]] for job in found.jobs.values() if job.kind == "align"}
    assert not any(row.chosen or row.rejected for row in seen["none"].examples)
    assert {row.language for row in seen["sft"].examples if row.chosen} == {"en"}


def test_training_prompts_that_the_evaluation_asks_are_removed_in_every_language_and_noted(bench: Bench) -> None:
    corpus = bench.folder / "corpus.jsonl"
    # The evaluation asks "xa ask 1"; all translations of that row must go.
    corpus.write_text(corpus.read_text().replace("xa good 1", "XA ask, 1!"))
    found = made(bench, methods=["none", {"use": "sft", "with": {"languages": "all"}}])
    assert found.notes == ("1 training prompts also occur in requests; they were removed from training",)
    assert all(row.id != "p1" for corpus in found.corpora.values() for row in corpus.examples)
    assert any(row.id == "p3" for corpus in found.corpora.values() for row in corpus.examples)


def test_a_limit_changes_answers_and_neither_training_nor_decontamination(bench: Bench) -> None:
    corpus = bench.folder / "corpus.jsonl"
    corpus.write_text(corpus.read_text().replace("en good 1", "en ask 3"))
    whole, limited = made(bench), made(bench, limit=2)
    assert {cell.prompts for cell in limited.cells} == {2}
    assert not keys(whole, "answer") & keys(limited, "answer")
    assert not keys(whole, "judge") & keys(limited, "judge")
    assert keys(whole, "align") == keys(limited, "align")
    assert limited.notes == whole.notes != ()


def test_a_language_that_a_task_lacks_is_excluded_with_the_reason(bench: Bench) -> None:
    other = bench.folder / "few.py"
    other.write_text((bench.folder / "requests.py").read_text().replace('("en", "xa", "xb")', '("en", "xa")'))
    found = made(bench, tasks=["requests", "few"], plugins=bench.plugins(f"task:{other}"))
    assert found.excluded == ("few in xb: the task has no prompts in this language",)


def test_everything_a_method_may_import_of_the_engine_is_in_its_key() -> None:
    """A module that a method reaches and that is not hashed would make stale results look fresh."""
    plumbing = {"errors", "plugins", "sources"}  # they decide what is found, not what it does
    todo, seen = sorted((ROOT / "methods").glob("*.py")), set()
    while todo:
        for node in ast.walk(ast.parse(todo.pop().read_text(encoding="utf-8"))):
            names = [node.module] if isinstance(node, ast.ImportFrom) and node.module else []
            if isinstance(node, ast.ImportFrom) and node.module == "mlbench":
                names = [f"mlbench.{alias.name}" for alias in node.names]
            for module in {name.split(".")[1] for name in names if name.startswith("mlbench.")} - seen - plumbing:
                seen.add(module)
                file = ROOT / "mlbench" / f"{module}.py"
                todo += [file] if file.exists() else sorted((ROOT / "mlbench" / module).rglob("*.py"))
    assert seen <= set(plan.ENGINE["align"])


def test_every_hashed_part_of_the_engine_exists() -> None:
    for module in {module for modules in plan.ENGINE.values() for module in modules}:
        place = ROOT / "mlbench" / module
        assert place.is_dir() or place.with_suffix(".py").is_file(), module


LIGHT = [
    ["--help"],
    ["list", "methods"],
    ["list", "tasks"],
    ["list", "judges"],
    ["show", "sft"],
    ["plan", "tiny.yaml"],
    ["status", "run"],
    ["report", "--help"],
    ["report", "run"],
]


@pytest.fixture(scope="module")
def finished(make_bench: Any, tmp_path_factory: pytest.TempPathFactory) -> Bench:
    from mlbench import verbs

    bench: Bench = make_bench(tmp_path_factory.mktemp("finished"))
    verbs.run(bench.write(methods=["none"], corpus=None, tracking={"enabled": False}), inline=True)
    return bench


@pytest.mark.parametrize("words", LIGHT, ids=" ".join)
def test_looking_imports_neither_torch_nor_ray_nor_mlflow(finished: Bench, words: list[str]) -> None:
    code = (
        "import sys\nfrom mlbench import cli\nsys.argv = ['mlbench', *sys.argv[1:]]\n"
        "try:\n    cli.main()\nexcept SystemExit as end:\n    assert not end.code, end.code\n"
        "print({'torch', 'ray', 'mlflow', 'transformers'} & set(sys.modules), file=sys.stderr)\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code, *words], cwd=finished.folder, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stderr
    assert ended.stderr.strip().splitlines()[-1] == "set()"
