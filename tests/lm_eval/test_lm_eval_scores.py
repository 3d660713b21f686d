"""Scores and answers, against those of our own generation, our own choosing and plain probabilities."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from mlbench import models, plugins
from mlbench.core import Answer, Checkpoint, Prompt
from mlbench.errors import DataError, PluginError

from .harness import CHOICES, SIZE, WRITING_TASK, asked, lm_eval, mine, question, write_task

MGSM = Path(__file__).parents[3] / "shared" / "data" / "mgsm"


def likelihood(loaded: models.Loaded, context: str, option: str) -> float:
    """Return the log-probability of an option after a context, token by token."""
    before = loaded.tokenizer(context, add_special_tokens=False)["input_ids"]
    after = loaded.tokenizer(option, add_special_tokens=False)["input_ids"]
    with torch.no_grad():
        logits = loaded.model(input_ids=torch.tensor([before + after])).logits[0].double().log_softmax(-1)
    return sum(logits[len(before) + at - 1, token].item() for at, token in enumerate(after))


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


def test_a_question_that_does_not_fit_is_refused_and_never_cut(folder: Path, loaded: models.Loaded) -> None:
    write_task(folder, "words", WRITING_TASK, [{"question": "x" * 600, "target": "y"}])
    task = lm_eval(name="words", include_path=str(folder))
    with pytest.raises(DataError, match="takes 608 tokens with its answer, and the model 512"):
        asked(task, loaded)


def test_the_judge_takes_the_score_over() -> None:
    judge = plugins.load("judge", "lm_eval")()
    prompt = Prompt(id="a", cluster="a", language="en", text="a")
    answers = [Answer(prompt=prompt, text="", score=score) for score in (1.0, 0.0, None)]
    verdicts = [(verdict.label, verdict.correct) for verdict in judge.grade(answers)]
    assert verdicts == [("complied_safe", True), ("complied_safe", False), ("unparsed", None)]


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
