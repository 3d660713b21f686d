"""Utility tasks of lm-evaluation-harness: planned without its index, asked on our checkpoints, scored per document."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch

from mlbench import check, jobs, models, plugins, verbs
from mlbench.core import Answer, Checkpoint, Prompt
from mlbench.errors import ConfigError, DataError, JobError, PluginError
from mlbench.results import frames
from mlbench.store import Store

from .conftest import Bench

pytest.importorskip("lm_eval", reason="needs the extra `utility`")

CHOICES = ("yes", "nope", "odd")
SIZE = 12
CHOICE_TASK = """
task: {name}
dataset_path: json
dataset_kwargs: {{data_files: {{test: {data}}}}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{{{question}}}}"
doc_to_choice: ["yes", "nope", "odd"]
doc_to_target: label
metric_list:
  - {{metric: acc, aggregation: mean, higher_is_better: true}}
  - {{metric: acc_norm, aggregation: mean, higher_is_better: true}}
"""
WRITING_TASK = """
task: {name}
dataset_path: json
dataset_kwargs: {{data_files: {{test: {data}}}}}
test_split: test
output_type: generate_until
doc_to_text: "{{{{question}}}}"
doc_to_target: "{{{{target}}}}"
generation_kwargs: {{do_sample: false, until: ["\\n\\n\\n"]}}
filter_list:
  - name: bare
    filter: [{{function: remove_whitespace}}, {{function: take_first}}]
metric_list:
  - {{metric: exact_match, aggregation: mean, higher_is_better: true}}
"""
MGSM = Path(__file__).parents[2] / "shared" / "data" / "mgsm"


def lm_eval(**fields: Any) -> Any:
    return plugins.load("task", "lm_eval")(**fields)


def question(index: int, language: str) -> str:
    return f"{language}: which word comes before the number {index}?"


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the prepared data sets of a test apart from those of the user."""
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "datasets")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder with the task `mine` in two languages, in the harness's own format."""
    place = tmp_path / "harness"
    place.mkdir()
    for language in ("en", "xa"):
        rows = [
            {"question": question(index, language), "label": index % 3, "key": f"k{index}"} for index in range(SIZE)
        ]
        write_task(place, f"mine_{language}", CHOICE_TASK, rows)
    return place


def write_task(folder: Path, name: str, task: str, rows: Sequence[Any]) -> None:
    data = folder / f"{name}.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    (folder / f"{name}.yaml").write_text(task.format(name=name, data=data), encoding="utf-8")


def mine(folder: Path, **fields: Any) -> Any:
    standard = {"name": "mine_{language}", "languages": ("en", "xa"), "parallel": True, "metric": "acc"}
    return lm_eval(**standard | {"include_path": str(folder)} | fields)


@pytest.fixture(scope="module")
def loaded(tiny_model: Path) -> models.Loaded:
    """Return the tiny model in memory."""
    torch.set_num_threads(1)
    return models.load(Checkpoint(base=str(tiny_model)))


def asked(task: Any, loaded: models.Loaded, language: str = "en", *, new: int = 4) -> list[Answer]:
    found: list[Answer] = task.answer(loaded, task.prompts(language), max_new_tokens=new, batch_size=5)
    return found


def likelihood(loaded: models.Loaded, context: str, option: str) -> float:
    """Return the log-probability of an option after a context, token by token."""
    before = loaded.tokenizer(context, add_special_tokens=False)["input_ids"]
    after = loaded.tokenizer(option, add_special_tokens=False)["input_ids"]
    with torch.no_grad():
        logits = loaded.model(input_ids=torch.tensor([before + after])).logits[0].double().log_softmax(-1)
    return sum(logits[len(before) + at - 1, token].item() for at, token in enumerate(after))


def test_translations_share_their_id_and_the_reference_is_the_hash_of_the_document(folder: Path) -> None:
    task = mine(folder)
    english, other = task.prompts("en"), task.prompts("xa")
    assert [prompt.id for prompt in english] == [prompt.id for prompt in other] == [str(n) for n in range(SIZE)]
    assert {prompt.cluster for prompt in english} == {prompt.id for prompt in english}
    assert english[3].text == question(3, "en") and other[3].text == question(3, "xa")
    assert english[0].choices == CHOICES
    assert len({prompt.reference for prompt in (*english, *other)}) == 2 * SIZE


def test_columns_can_make_ids_and_clusters(folder: Path) -> None:
    prompts = mine(folder, id=("key", "label"), cluster=("label",)).prompts("en")
    assert [prompt.id for prompt in prompts[:4]] == ["k0#0", "k1#1", "k2#2", "k3#0"]
    assert [prompt.cluster for prompt in prompts[:4]] == ["0", "1", "2", "0"]
    with pytest.raises(DataError, match=r"(?s)no column 'keys'.*allowed: question, label, key"):
        mine(folder, id=("keys",)).prompts("en")


def test_an_id_that_occurs_twice_is_told_apart_by_the_order(folder: Path) -> None:
    prompts = mine(folder, id=("label",), limit=5).prompts("en")
    assert [prompt.id for prompt in prompts] == ["0", "1", "2", "0~2", "1~2"]


def test_documents_that_are_no_translations_have_ids_of_their_own(folder: Path) -> None:
    task = mine(folder, parallel=False)
    assert task.prompts("en")[1].id == "en/1" and task.prompts("xa")[1].id == "xa/1"


def test_languages_of_different_length_are_not_paired_by_number(folder: Path) -> None:
    rows = [{"question": question(index, "xa"), "label": 0, "key": f"k{index}"} for index in range(SIZE - 1)]
    write_task(folder, "mine_xa", CHOICE_TASK, rows)
    task = mine(folder)
    task.prompts("en")
    with pytest.raises(DataError, match="12 in en, 11 in xa: documents of one number cannot be translations"):
        task.prompts("xa")


def test_scores_in_the_chat_template_are_those_of_our_own_choosing(folder: Path, loaded: models.Loaded) -> None:
    task = mine(folder)
    answers = asked(task, loaded)
    ours = models.choose(loaded, task.prompts("en"))
    assert [answer.choice for answer in answers] == [answer.choice for answer in ours]
    assert [answer.score for answer in answers] == [float(ours[n].choice == n % 3) for n in range(SIZE)]
    assert [answer.prompt for answer in answers] == list(task.prompts("en"))
    assert len({answer.score for answer in answers}) == 2


@pytest.mark.parametrize(("metric", "sizes"), [("acc", (1, 1, 1)), ("acc_norm", (3, 4, 3))])
def test_scores_without_the_chat_template_are_those_of_plain_text(
    metric: str, sizes: tuple[int, ...], folder: Path, loaded: models.Loaded
) -> None:
    answers = asked(mine(folder, chat_template=False, metric=metric), loaded)
    for index, answer in enumerate(answers):
        # The harness puts a blank between question and option.
        scores = [likelihood(loaded, question(index, "en"), f" {option}") for option in CHOICES]
        normed = [score / size for score, size in zip(scores, sizes, strict=True)]
        assert answer.choice == normed.index(max(normed))
        assert answer.score == float(answer.choice == index % 3)


def test_the_contract_holds(folder: Path) -> None:
    findings = list(check.task(mine(folder)))
    assert [finding for finding in findings if not finding.passed or finding.skipped] == []
    assert "gives one answer per prompt of a model it asks itself" in {finding.check for finding in findings}


def test_the_judge_takes_the_score_over() -> None:
    judge = plugins.load("judge", "lm_eval")()
    prompt = Prompt(id="a", cluster="a", language="en", text="a")
    answers = [Answer(prompt=prompt, text="", score=score) for score in (1.0, 0.0, None)]
    verdicts = [(verdict.label, verdict.correct) for verdict in judge.grade(answers)]
    assert verdicts == [("complied_safe", True), ("complied_safe", False), ("unparsed", None)]


def test_what_does_not_fit_into_memory_is_asked_in_halves(
    folder: Path, loaded: models.Loaded, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = mine(folder)
    ask, tried = type(task).answer, []

    def cramped(self: Any, *words: Any, batch_size: int, **more: Any) -> list[Answer]:
        tried.append(batch_size)
        if batch_size > 2:
            raise torch.OutOfMemoryError("too much")
        found: list[Answer] = ask(self, *words, batch_size=batch_size, **more)
        return found

    monkeypatch.setattr(type(task), "answer", cramped)
    spec = {
        "task": "lm_eval",
        "plugin_files": {},
        "task_fields": asdict(task),
        "fingerprint": task.fingerprint("en"),
        "system_prompt": "",
        "batch_size": 8,
        "max_new_tokens": 4,
    }
    done = jobs.answer(spec, loaded.checkpoint, task.prompts("en"), lambda *place: None)
    assert tried == [8, 4, 2]
    assert [answer.prompt for answer in done.answers] == list(task.prompts("en"))


def test_some_of_the_prompts_get_the_answers_they_get_among_all(folder: Path, loaded: models.Loaded) -> None:
    task = mine(folder)
    everything = {answer.prompt.id: answer for answer in asked(task, loaded)}
    some = [task.prompts("en")[number] for number in (7, 2, 9)]
    answers = task.answer(loaded, some, max_new_tokens=4, batch_size=2)
    assert answers == [everything[prompt.id] for prompt in some]


def test_asking_leaves_the_model_and_its_tokenizer_as_they_were(folder: Path, loaded: models.Loaded) -> None:
    before = {name: tensor.clone() for name, tensor in loaded.model.state_dict().items()}
    asked(mine(folder), loaded)
    assert all(torch.equal(before[name], tensor) for name, tensor in loaded.model.state_dict().items())
    assert loaded.tokenizer.padding_side == "left" and not loaded.model.training


def test_an_adapter_takes_part(folder: Path, tiny_model: Path, tmp_path: Path, loaded: models.Loaded) -> None:
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(0)
    adapted = get_peft_model(
        models.load(Checkpoint(base=str(tiny_model))).model,
        LoraConfig(r=8, lora_alpha=200, target_modules="all-linear", init_lora_weights=False),
    )
    adapted.save_pretrained(tmp_path / "adapter")
    with_adapter = models.load(Checkpoint(base=str(tiny_model), adapters=(str(tmp_path / "adapter"),)))
    task = mine(folder)
    answers = asked(task, with_adapter)
    ours = models.choose(with_adapter, task.prompts("en"))
    assert [answer.score for answer in answers] == [float(ours[n].choice == n % 3) for n in range(SIZE)]
    assert [answer.score for answer in answers] != [answer.score for answer in asked(task, loaded)]


def test_a_system_prompt_takes_part(folder: Path, loaded: models.Loaded) -> None:
    told = replace(loaded, checkpoint=Checkpoint(base="", system_prompts={"en": "Answer no, and nothing but no! " * 3}))
    task = mine(folder)
    assert [each.choice for each in asked(task, told)] == [
        each.choice for each in models.choose(told, task.prompts("en"))
    ]
    assert [each.choice for each in asked(task, told)] != [each.choice for each in asked(task, loaded)]


def test_written_answers_are_those_of_our_own_generation(folder: Path, loaded: models.Loaded) -> None:
    texts = [question(index, "en") for index in range(6)]
    prompts = [Prompt(id=text, cluster=text, language="en", text=text) for text in texts]
    ours = [answer.text for answer in models.generate(loaded, prompts, max_new_tokens=5)]
    targets = [text if index % 2 else f"{text}?" for index, text in enumerate(ours)]
    rows = [{"question": text, "target": target} for text, target in zip(texts, targets, strict=True)]
    write_task(folder, "words", WRITING_TASK, rows)
    task = lm_eval(name="words", include_path=str(folder))
    answers = asked(task, loaded, new=5)
    assert [answer.text.strip() for answer in answers] == ours
    assert [answer.score for answer in answers] == [0, 1, 0, 1, 0, 1]
    assert all(answer.choice is None and answer.truncated for answer in answers)
    assert task.prompts("en")[0].choices == ()


def test_a_question_that_does_not_fit_is_refused_and_never_cut(folder: Path, loaded: models.Loaded) -> None:
    write_task(folder, "words", WRITING_TASK, [{"question": "x" * 600, "target": "y"}])
    task = lm_eval(name="words", include_path=str(folder))
    with pytest.raises(DataError, match="takes 608 tokens with its answer, and the model 512"):
        asked(task, loaded)


def test_examples_are_drawn_anew_from_the_same_seed(folder: Path, loaded: models.Loaded) -> None:
    text = (folder / "mine_en.yaml").read_text(encoding="utf-8")
    (folder / "mine_en.yaml").write_text(text + "fewshot_split: test\n", encoding="utf-8")
    task = mine(folder, num_fewshot=2)
    first, again = asked(task, loaded), asked(task, loaded)
    assert first == again
    assert task.fingerprint("en") != mine(folder).fingerprint("en")


def test_a_score_that_is_no_right_or_wrong_is_refused(folder: Path, loaded: models.Loaded) -> None:
    task = WRITING_TASK.replace("exact_match, aggregation: mean", "chrf, aggregation: chrf")
    write_task(folder, "words", task, [{"question": "a", "target": "b"}])
    with pytest.raises(PluginError, match=r"(?s)say in `metric` which score of 'words'.*allowed: chrf,bare"):
        lm_eval(name="words", include_path=str(folder)).prompts("en")
    with pytest.raises(PluginError, match=r"'chrf' of 'words' is .* neither right, 1, nor wrong, 0"):
        asked(lm_eval(name="words", include_path=str(folder), metric="chrf"), loaded)


def test_planning_indexes_one_folder_and_imports_no_torch(bench: Bench, folder: Path) -> None:
    entry = {"use": "lm_eval:mine_{language}", "with": fields(folder)}
    bench.write(tasks=[entry], methods=["none"], languages=["en"], unseen=["xa"])
    (bench.folder / "look.py").write_text(LOOK, encoding="utf-8")
    found = json.loads(run_python(bench, "look.py"))
    assert found == {"torch": False, "lm_eval": True, "indexed": [str(folder.resolve())] * 2}
    bench.write()
    assert json.loads(run_python(bench, "look.py")) == {"torch": False, "lm_eval": False, "indexed": []}


LOOK = """
import json, sys
from pathlib import Path
from mlbench import planner, shootout

indexed = []

def watch():
    from lm_eval.tasks._index import TaskIndex
    build = TaskIndex.build
    def noted(self, paths, **options):
        indexed.extend(map(str, paths))
        return build(paths, **options)
    TaskIndex.build = noted

if "lm_eval" in Path("tiny.yaml").read_text():
    watch()
planner.make(shootout.load(Path("tiny.yaml")))
print(json.dumps({"torch": "torch" in sys.modules, "lm_eval": "lm_eval" in sys.modules, "indexed": indexed}))
"""


def run_python(bench: Bench, script: str) -> str:
    own = os.environ | {"HF_DATASETS_CACHE": str(bench.folder / "datasets")}
    done = subprocess.run(
        [sys.executable, script], cwd=bench.folder, env=own, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def fields(folder: Path, **changes: Any) -> dict[str, Any]:
    standard = {"languages": ["en", "xa"], "parallel": True, "metric": "acc", "include_path": str(folder)}
    return standard | changes


def test_a_group_of_many_languages_is_refused_by_name() -> None:
    with pytest.raises(PluginError, match=r"(?s)'belebele' is a group.*allowed: belebele_acm_Arab"):
        lm_eval(name="belebele").prompts("en")


def test_a_group_of_one_language_is_taken_apart() -> None:
    from mlbench_tasks import _harness

    names = [leaf.name for leaf in _harness.leaves("global_mmlu_bn", "", group=True)]
    parts = ("business", "humanities", "medical", "other", "stem", "social_sciences")
    assert names == [f"global_mmlu_bn_{part}" for part in parts]
    assert len(_harness.leaves("global_mmlu_full_bn", "", group=True)) == 57


def test_the_documents_of_a_group_keep_the_name_of_their_part(folder: Path, loaded: models.Loaded) -> None:
    for language in ("en", "xa"):
        for part in ("a", "b"):
            rows = [{"question": f"{language} {part}{n}", "label": n} for n in range(2)]
            write_task(folder, f"both_{language}_{part}", CHOICE_TASK, rows)
        members = f"group: both_{language}\ntask: [both_{language}_a, both_{language}_b]\n"
        (folder / f"both_{language}.yaml").write_text(members, encoding="utf-8")
    task = mine(folder, name="both_{language}")
    assert [prompt.id for prompt in task.prompts("en")] == ["a/0", "a/1", "b/0", "b/1"]
    assert [prompt.id for prompt in task.prompts("xa")] == ["a/0", "a/1", "b/0", "b/1"]
    last = task.prompts("en")[3:]
    answers = task.answer(loaded, last, max_new_tokens=4, batch_size=2)
    assert [answer.choice for answer in answers] == [answer.choice for answer in models.choose(loaded, last)]


def test_every_language_of_the_built_in_map_is_a_task_of_the_harness() -> None:
    from mlbench_tasks import _families, _harness

    names = [
        name.replace("{language}", code)
        for name, family in _families.FAMILIES.items()
        for code in family.codes.values()
    ]
    assert len(names) == 49 + 15 + 42 + 3 * 11 + 11
    assert set(names) <= set(_harness._builtin_names())


def test_an_unknown_task_gives_the_nearest_names() -> None:
    with pytest.raises(PluginError, match=r"(?s)no task 'belebele_eng_Lat'.*belebele_eng_Latn"):
        lm_eval(name="belebele_eng_Lat").prompts("en")


def test_fields_that_do_not_fit_are_refused(folder: Path) -> None:
    with pytest.raises(ValueError, match=r"name the languages of 'arc_{language}' in `languages`"):
        lm_eval(name="arc_{language}")
    with pytest.raises(ValueError, match="say in `parallel` whether documents"):
        lm_eval(name="arc_{language}", languages=("de", "fr"))
    with pytest.raises(ValueError, match=r"several languages but no {language}"):
        lm_eval(name="arc_de", languages=("de", "fr"), parallel=True)
    with pytest.raises(DataError, match=r"include_path '.*nowhere' is no folder"):
        mine(folder, include_path=str(folder / "nowhere")).prompts("en")


def test_a_hub_data_set_needs_a_commit() -> None:
    with pytest.raises(DataError, match=r"(?s)'facebook/belebele', which needs `revision`.*include_path"):
        lm_eval(name="belebele_{language}").prompts("bn")


def test_a_data_set_that_is_not_cached_is_named_without_a_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(DataError, match=r"(?s)cannot load the hub data set 'facebook/belebele'.*cached.*include_path"):
        lm_eval(name="belebele_{language}", revision="0" * 40).prompts("bn")


def test_without_the_harness_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    from mlbench_tasks import _harness

    monkeypatch.setattr(_harness, "find_spec", lambda name: None)
    _harness._builtin_names.cache_clear()
    with pytest.raises(PluginError, match=r"pip install 'mlbench\[utility\]'"):
        lm_eval(name="belebele_{language}").prompts("bn")


def test_an_argument_after_a_colon_fills_the_field_it_belongs_to(bench: Bench, folder: Path) -> None:
    from mlbench import planner, shootout

    entry = {"use": "lm_eval:mine_{language}", "with": fields(folder)}
    made = planner.make(shootout.load(bench.write(tasks=[entry], unseen=None)))
    assert list(made.tasks) == ["mine"]
    for wrong, message in (
        ({"use": "requests:many"}, "the task 'requests' takes no argument"),
        (entry | {"with": fields(folder, name="mine_en")}, "'name' is given twice"),
    ):
        with pytest.raises(ConfigError, match=f"tasks.*{message}"):
            planner.make(shootout.load(bench.write(tasks=[wrong], unseen=None)))


def answer_keys(bench: Bench, **changes: Any) -> dict[str, str]:
    from mlbench import planner, shootout

    made = planner.make(shootout.load(bench.write(methods=["none"], unseen=None, **changes)))
    return {cell.language: cell.answer_key for cell in made.cells}


def test_answers_depend_on_how_they_are_asked_and_scored_and_on_nothing_else(bench: Bench, folder: Path) -> None:
    def keys(**changes: Any) -> dict[str, str]:
        return answer_keys(bench, tasks=[{"use": "lm_eval:mine_{language}", "with": fields(folder, **changes)}])

    before = keys()
    assert keys(codes={"xb": "xb"}) == before  # a language that is not asked
    assert keys(metric="acc_norm")["en"] != before["en"]
    assert keys(chat_template=False)["en"] != before["en"]
    path = folder / "mine_xa.yaml"
    path.write_text(path.read_text(encoding="utf-8") + "target_delimiter: '_'\n", encoding="utf-8")
    after = keys()
    assert after["en"] == before["en"] and after["xa"] != before["xa"]


def test_a_shootout_has_a_score_per_document_and_asks_nothing_twice(bench: Bench, folder: Path) -> None:
    path = bench.write(
        tasks=[{"use": "requests", "with": {"count": 2}}, {"use": "lm_eval:mine_{language}", "with": fields(folder)}],
        methods=["none"],
        languages=["en", "xa"],
        unseen=None,
        tracking={"enabled": False},
    )
    outcome = verbs.run(path, inline=True)
    assert outcome.exit_code == 0
    root = bench.folder / "run"
    plan = frames.read_plan(root)
    rows = frames.verdicts(plan, Store(root))
    rows = rows[(rows["task"] == "mine") & (rows["method"] == "none")]
    assert list(rows["chance"].unique()) == [pytest.approx(1 / 3)]
    loaded = models.load(Checkpoint(base=str(bench.folder / "model")))
    for language in ("en", "xa"):
        ours = models.choose(loaded, mine(folder).prompts(language))
        expected = {str(n): ours[n].choice == n % 3 for n in range(SIZE)}
        part = rows[rows["language"] == language]
        assert dict(zip(part["prompt_id"], part["correct"], strict=True)) == expected
    assert verbs.run(path, inline=True).ran == 0


def test_a_worker_refuses_other_data_or_another_task_than_planned(folder: Path, loaded: models.Loaded) -> None:
    task = mine(folder)
    prompts = task.prompts("en")
    changed = [replace(prompts[0], reference="something else")]
    with pytest.raises(DataError, match=r"the data of 'mine_{language}' changed since the plan was made"):
        task.answer(loaded, changed, max_new_tokens=4, batch_size=2)
    spec = {"task": "lm_eval", "plugin_files": {}, "task_fields": asdict(task), "fingerprint": "another"}
    with pytest.raises(JobError, match="not on this worker as it was when the plan was made"):
        jobs.answer(spec, loaded.checkpoint, prompts, lambda *done: None)


def test_mgsm_is_read_from_its_files_by_the_harness_own_task(tmp_path: Path, loaded: models.Loaded) -> None:
    if not MGSM.is_dir():
        pytest.skip(f"{MGSM} is not on this machine")
    from mlbench_tasks import _harness

    for language in ("en", "bn", "sw"):
        lines = (MGSM / f"mgsm_{language}.tsv").read_text(encoding="utf-8").splitlines()
        pairs = [line.split("\t") for line in lines]
        rows = [
            {"question": text, "answer": None, "answer_number": int(number.replace(",", ""))} for text, number in pairs
        ]
        name = f"mgsm_direct_{language}"
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        own = {"dataset_path": "json", "dataset_name": None, "training_split": None, "task": name}
        own |= {"dataset_kwargs": {"data_files": {"test": str(tmp_path / f"{name}.jsonl")}}}
        own |= {"include": str(_harness._builtin() / "mgsm" / "direct" / f"{name}.yaml")}
        lines = [f"{key}: {json.dumps(value)}\n" for key, value in own.items()]
        (tmp_path / f"{name}.yaml").write_text("".join(lines), encoding="utf-8")
    task = lm_eval(name="mgsm_direct_{language}", include_path=str(tmp_path))
    bengali = task.prompts("bn")
    assert len(bengali) == len(task.prompts("en")) == len(task.prompts("sw")) == 250
    assert bengali[249].id == task.prompts("sw")[249].id == "249"
    assert bengali[0].text.startswith("প্রশ্ন: জেনেটের") and bengali[0].text.endswith("\nAnswer:")
    few = lm_eval(name="mgsm_direct_{language}", include_path=str(tmp_path), limit=3)
    answers = asked(few, loaded, new=12)
    gold = [18, 3, 70000]
    for answer, number in zip(answers, gold, strict=True):
        numbers = re.findall(r"-?[$0-9.,]{2,}|-?[0-9]+", answer.text)
        said = re.sub(r"[^\w\s]", "", numbers[-1]) if numbers else ""
        assert answer.score == float(said == str(number))
