"""Every way in which a shootout can be wrong: the error names file, line, key, what is allowed and the nearest name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mlbench import planner, shootout
from mlbench.errors import UserError

from .conftest import Bench


def refusal(path: Path, *overrides: str) -> UserError:
    with pytest.raises(UserError) as caught:
        planner.make(shootout.load(path, overrides))
    return caught.value


def line_of(path: Path, key: str) -> int:
    return next(at for at, line in enumerate(path.read_text().splitlines(), 1) if line.startswith(f"{key}:"))


UNKNOWN = [
    ({"methods": ["none", "sfft"]}, "methods[1]", "unknown method 'sfft'", "did you mean 'sft'?", "sft"),
    ({"methods": [{"use": "sfft"}]}, "methods[0].use", "unknown method 'sfft'", "did you mean 'sft'?", "mlc"),
    (
        {"methods": [{"use": ["none", {"method": "sfft"}]}]},
        "methods[0].use[1].method", "unknown method 'sfft'", "did you mean 'sft'?", "mlc",
    ),
    ({"models": ["organism:smal"]}, "models[0]", "unknown model 'organism:smal'", "did you mean 'organism:small'?",
     "organism:small"),
    ({"tasks": ["multijale"]}, "tasks[0]", "unknown task 'multijale'", "did you mean 'multijail'?", "multijail"),
    ({"tasks": [{"use": "requests", "judge": "refusl"}]}, "tasks[0].judge", "unknown judge 'refusl'",
     "did you mean 'refusal'?", "refusal"),
    ({"languages": ["en", "xaa"]}, "languages[1]", "no task has the language 'xaa'", "did you mean 'xa'?", "xb"),
    ({"unseen": ["xbb"]}, "unseen[0]", "no task has the language 'xbb'", "did you mean 'xb'?", "xb"),
    ({"corpsu": "x"}, "corpsu", "unknown key 'corpsu'", "did you mean 'corpus'?", "corpus"),
    ({"methods": [{"use": "sft", "wiht": {}}]}, "methods[0].wiht", "unknown key 'wiht'",
     "did you mean 'with'?", "with"),
    ({"methods": [{"use": "sft", "with": {"bening": True}}]}, "methods[0].with.bening", "unknown key 'bening'",
     "did you mean 'benign'?", "benign"),
    (
        {"methods": [{"use": ["none", {"method": "sft", "with": {"bening": True}}]}]},
        "methods[0].use[1].with.bening", "unknown key 'bening'", "did you mean 'benign'?", "benign",
    ),
    ({"training": {"stepz": 2}}, "training.stepz", "unknown key 'stepz'", "did you mean 'steps'?", "steps"),
    ({"methods": [{"use": "sft", "training": {"stepz": 2}}]}, "methods[0].training.stepz", "unknown key 'stepz'",
     "did you mean 'steps'?", "steps"),
    ({"tasks": [{"use": "requests", "with": {"cuont": 2}}]}, "tasks[0].with.cuont", "unknown key 'cuont'",
     "did you mean 'count'?", "count"),
    ({"baseline": "sftt"}, "baseline", "the baseline 'sftt' is not among the methods", "did you mean 'sft'?", "none"),
    ({"models": [{"source": "organism:small", "dtype": "flaot32"}]}, "models[0].dtype", "got 'flaot32'",
     "did you mean 'float32'?", "bfloat16"),
    ({"plugins": ["tasks:x.py"]}, "plugins[0]", "'tasks:x.py' does not say what the plugin is", "",
     "task:path/to/file.py"),
]  # fmt: skip


@pytest.mark.parametrize(("changes", "key", "message", "hint", "allowed"), UNKNOWN)
def test_unknown_name_tells_line_key_allowed_and_nearest(
    bench: Bench, changes: dict[str, Any], key: str, message: str, hint: str, allowed: str
) -> None:
    path = bench.write(**changes)
    error = refusal(path)
    assert str(error.where) == f"{path}:{line_of(path, next(iter(changes)))}: {key}"
    assert error.message.startswith(message)
    assert error.hint == hint
    assert allowed in error.allowed


WRONG = [
    ({"seeds": ["one"]}, "seeds[0]", "should be a valid integer, got 'one'"),
    ({"seeds": [-1]}, "seeds[0]", "should be greater than or equal to 0, got -1"),
    ({"seeds": [2**40]}, "seeds[0]", "should be less than 4294967296"),
    ({"training": {"steps": 0}}, "training.steps", "should be greater than or equal to 1, got 0"),
    ({"training": {"steps": "2"}}, "training.steps", "should be a valid integer, got '2'"),
    ({"methods": [{"use": "sft", "training": {"steps": 0}}]}, "methods[0].training.steps", "should be greater than"),
    ({"methods": [{"use": "sft", "with": {"benign": "no"}}]}, "methods[0].with.benign", "should be true or false"),
    ({"methods": [{"use": "sft", "with": {"languages": "x"}}]}, "methods[0].with.languages", "got 'x'"),
    ({"tasks": [{"use": "requests", "with": {"count": "four"}}]}, "tasks[0].with.count", "should be a valid integer"),
    ({"tasks": [{"use": "requests", "with": {"count": 99}}]}, "tasks[0].with.count", "should be less than or equal"),
    ({"schedule": {"fail_on_error": 1.5}}, "schedule.fail_on_error",
     "should be true or false or a valid integer or less than 1, got 1.5"),
    ({"models": "model"}, "models", "should be a list, got 'model'"),
    ({"name": "a/b"}, "name", "should start with a letter or digit and hold only letters, digits and . _ + -"),
    ({"languages": []}, "languages", "must not be empty"),
    ({"methods": []}, "methods", "must not be empty"),
    ({"tasks": []}, "tasks", "must not be empty"),
    ({"models": []}, "models", "must not be empty"),
    ({"seeds": []}, "seeds", "must not be empty"),
    ({"methods": [{"use": []}]}, "methods[0].use", "must not be empty"),
    ({"methods": ["sft", {"use": "sft"}]}, "methods[1]", "'sft' occurs twice; give one of them another `name`"),
    ({"languages": ["en", "xa", "xa"]}, "languages[2]", "'xa' occurs twice"),
    ({"unseen": ["xb", "xb"]}, "unseen[1]", "'xb' occurs twice"),
    ({"seeds": [1, 2, 1]}, "seeds[2]", "1 occurs twice"),
    ({"tasks": ["requests", "requests"]}, "tasks[1]", "'requests' occurs twice"),
    ({"unseen": ["en"]}, "unseen[0]", "'en' is the pivot, so it cannot be unseen"),
    ({"unseen": ["xa"]}, "unseen[0]", "'xa' is among `languages` too"),
    ({"pivot": "xz"}, "pivot", "the pivot 'xz' is not among the languages"),
    ({"corpus": "nowhere.jsonl"}, "corpus", "corpus file 'nowhere.jsonl' does not exist"),
    ({"plugins": ["task:nowhere.py"]}, "plugins[0]", "plugin file 'nowhere.py' does not exist"),
    ({"tasks": ["multijail"], "languages": ["en"], "unseen": None}, "tasks[0]",
     "the hub data set 'DAMO-NLP-SG/MultiJail' needs `revision`"),
    ({"models": ["org/name"]}, "models[0]", "the hub model 'org/name' needs `revision`"),
    ({"methods": [{"use": ["none", "sft"], "with": {"benign": True}}]}, "methods[0].with",
     "`with` is ambiguous for a chain"),
    ({"methods": [{"use": [{"method": "sft", "with": {"benign": True}}], "with": {"benign": False}}]},
     "methods[0].with", "`with` is ambiguous for a chain"),
]  # fmt: skip


@pytest.mark.parametrize(("changes", "key", "message"), WRONG)
def test_wrong_value_tells_line_key_and_what_is_wrong(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any], key: str, message: str
) -> None:
    monkeypatch.chdir(bench.folder)
    path = bench.write(**changes)
    error = refusal(path)
    assert str(error.where) == f"{path}:{line_of(path, next(iter(changes)))}: {key}"
    assert error.message.startswith(message)


def test_two_models_of_one_name_would_share_a_row_and_are_refused(bench: Bench, tiny_model: Path) -> None:
    path = bench.write(models=[str(bench.folder / "model"), str(tiny_model)])
    error = refusal(path)
    assert (error.where.key, error.where.line) == ("models[1]", 2)
    assert error.message.startswith("two models are called 'model'")


def test_a_plugin_file_may_not_take_an_existing_name(bench: Bench) -> None:
    bench.method("return start", name="sft")
    error = refusal(bench.write(plugins=bench.plugins(f"method:{bench.folder / 'sft.py'}")))
    assert error.where.key == "plugins[1]"
    assert error.message.startswith("there is a method 'sft' already, mlbench_methods.sft")


def test_norwegian_is_a_language_and_not_false(bench: Bench) -> None:
    path = bench.write()
    path.write_text(path.read_text().replace('"en", "xa"', "en, no"))
    assert refusal(path).message == "no task has the language 'no'"


def test_a_number_with_an_exponent_is_a_number(bench: Bench) -> None:
    path = bench.write()
    path.write_text(path.read_text().replace("0.01", "6e-7"))
    assert shootout.load(path).settings.training.learning_rate == 6e-7


@pytest.mark.parametrize(
    ("override", "place"),
    [
        ("training.stepz=1", "--set: training.stepz"),
        ("methods[1].training.steps=0", "--set: methods[1].training.steps"),
        ("methods=[none, sfft]", "--set: methods[1]"),
        ("languages=[en, xq]", "--set: languages[1]"),
        ("seeds=[1, 1]", "--set: seeds[1]"),
        ("corpus=nowhere.jsonl", "--set: corpus"),
        ("tasks[0].with.count=0", "--set: tasks[0].with.count"),
    ],
)
def test_errors_of_an_override_are_located_at_set(bench: Bench, override: str, place: str) -> None:
    assert str(refusal(bench.write(), override).where) == place


@pytest.mark.parametrize("limit", [0, 0.5, 7])
def test_failures_allowed_are_a_share_or_a_number(bench: Bench, limit: float) -> None:
    settings = shootout.load(bench.write(schedule={"fail_on_error": limit})).settings
    assert settings.schedule.fail_on_error == limit
    assert settings.schedule.fail_on_error is not False


@pytest.mark.parametrize(
    ("prompts", "message"),
    [
        ("[]", "task 'requests' has no prompts in 'en'"),
        ("[Prompt(id='a', cluster='a', language=language, text=t) for t in 'xy']", "has the id 'a' 2 times in 'en'"),
        (
            "[Prompt(id=t, cluster=t, language=language, text=t, choices=('p',) * (t == 'x')) for t in 'xy']",
            "prompts with and without choices",
        ),
    ],
)
def test_prompts_that_would_break_a_report_are_refused_before_anything_runs(
    bench: Bench, prompts: str, message: str
) -> None:
    file = bench.folder / "requests.py"
    head, _, tail = file.read_text().partition("return [")
    file.write_text(f"{head}return {prompts}\n{tail.partition(']')[2]}")
    error = refusal(bench.write())
    assert message in error.message
    assert error.where.key == "tasks[0]"
