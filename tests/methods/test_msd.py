"""MSD: weights and contexts by hand, and the training against a loss written out here."""

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from mlbench_methods.mlc import MLC
from mlbench_methods.msd import MSD, disagreement, early_window, entropy_share, fill
from pydantic import ValidationError
from torch.nn.functional import kl_div

from mlbench import models, tiny
from mlbench.core import Checkpoint, Corpus, Example
from mlbench.corpus import view
from mlbench.errors import DataError
from mlbench.training import fit
from mlbench.training.distil import Distillation

torch.set_num_threads(1)

SHORT = {"max_new_tokens": 6}


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    return tiny.model(tmp_path_factory.mktemp("start"))


def log(folder: Path, seed: int = 0, **changes: int | float) -> tiny.Log:
    return tiny.Log(folder=folder, seed=seed, training=tiny.budget(**changes))


def trained(method: MSD, start: Checkpoint, run: tiny.Log, corpus: Corpus | None = None) -> tiny.Log:
    method.align(start, view(corpus or tiny.corpus(), method.needs), run)
    return run


def weights(run: tiny.Log) -> list[bytes]:
    return [path.read_bytes() for path in sorted(run.folder.rglob("*.safetensors"))]


def prepared(
    method: MSD, start: Checkpoint, run: tiny.Log, corpus: Corpus | None = None
) -> tuple[Distillation, models.Loaded, tuple[Example, ...]]:
    """Return the objective of a full fine-tuning, its model and its rows in the order of the steps."""
    seen = view(corpus or tiny.corpus(), method.needs)
    rows = fit.lay_out(method.rows(seen, run), run).rows
    loaded = models.load(start, device="cpu")
    loaded.model.requires_grad_(True)
    return method.distillation(loaded, rows, seen, run), loaded, rows


# Three tokens. Teacher: certain; torn between two; indifferent. Student: .5, .3, .2 each time.
TEACHER = torch.tensor([[1.0, 1e-9, 1e-9], [0.5, 0.5, 1e-9], [1 / 3, 1 / 3, 1 / 3]]).log()
STUDENT = torch.tensor([[0.5, 0.3, 0.2]] * 3).log()
REALISED = [[1], [2, 0]]


def weigh(**fields: object) -> torch.Tensor:
    return MSD(**fields).weigh(STUDENT, TEACHER, REALISED)


def test_weights_are_those_worked_out_by_hand() -> None:
    half = math.log(2) / math.log(3)  # the entropy share of the torn teacher, K being cut to three tokens
    confidence = torch.tensor([1.0, 1 - half, 0.0])
    # 1 - p_S at tokens 1, 2, 0
    realised = torch.tensor([0.7, 0.8, 0.5])
    torch.testing.assert_close(weigh(weighting="teacher"), confidence, atol=1e-6, rtol=0)
    torch.testing.assert_close(weigh(weighting="teacher", teacher_term="entropy"), 1 - confidence, atol=1e-6, rtol=0)
    torch.testing.assert_close(weigh(weighting="student"), realised, atol=1e-6, rtol=0)
    torch.testing.assert_close(weigh(), confidence * realised, atol=1e-6, rtol=0)
    assert weigh(weighting="none").tolist() == [1, 1, 1]


def test_the_teachers_own_token_is_what_the_student_is_asked_about() -> None:
    teacher = torch.tensor([[0.1, 0.2, 0.7], [0.6, 0.3, 0.1]]).log()
    found = disagreement(STUDENT[:2], teacher, torch.tensor([1, 1]), "teacher_argmax")
    torch.testing.assert_close(found, torch.tensor([0.8, 0.5]))  # 1 - .2 at token 2, 1 - .5 at token 0


def test_only_the_top_tokens_count_and_they_are_renormalised() -> None:
    teacher = torch.tensor([[0.5, 0.25, 0.125, 0.125]]).log()
    # of the top two: 2/3 and 1/3
    expected = -(2 / 3 * math.log(2 / 3) + 1 / 3 * math.log(1 / 3)) / math.log(2)
    assert entropy_share(teacher, 2).item() == pytest.approx(expected, rel=1e-5)


def test_the_early_window_is_full_then_falls_to_the_floor_at_the_end() -> None:
    found = early_window(6, window=2, floor=0.2, decay="linear")
    assert found == pytest.approx([1, 1, 0.8, 0.6, 0.4, 0.2])
    assert early_window(2, window=32, floor=0.1, decay="linear") == [1, 1]
    assert early_window(4, window=2, floor=0.1, decay="step") == [1, 1, 0.1, 0.1]
    # Each answer has a window of its own.
    both = MSD(weighting="early_window", window=1, window_floor=0.5).weigh(STUDENT, TEACHER, REALISED)
    assert both.tolist() == [1, 1, 0.5]


def test_braces_in_a_prompt_stay_what_they_are() -> None:
    prompt = "print({language}) {0} {} {{prompt}}"
    assert fill("{prompt} in {language}", prompt=prompt, language="Swahili {prompt}") == (
        "print({language}) {0} {} {{prompt}} in Swahili {prompt}"
    )


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"answer_instruction": "Answer in {language}."}, "has no {prompt}"),
        ({"cot_instruction": "{prompt} in {tongue}"}, "unknown placeholder {tongue}"),
        ({"follow_up_instruction": "now {}"}, "unknown placeholder {}"),
        ({"context": "type_conditional"}, "cot: none"),
        ({"top_k": 1}, "greater than or equal to 2"),
        ({"polycy": "on"}, "polycy"),
    ],
)
def test_wrong_fields_are_refused_when_they_are_made(fields: dict[str, object], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        MSD(**fields)


def contexts(method: MSD, start: Checkpoint, folder: Path, corpus: Corpus) -> list[str]:
    """Return what the teacher sees of the pivot's and of another language's row, as text."""
    loaded = models.load(start, device="cpu")
    chats = method.contexts(loaded, corpus.examples, corpus, log(folder))
    return loaded.tokenizer.apply_chat_template(chats, tokenize=False, add_generation_prompt=True)


PAIR = Corpus(
    pivot="en",
    languages=("en", "xa"),
    names={"xa": "Xanish"},
    examples=tuple(
        Example(id="p", cluster="p", language=language, prompt=text, harmful=True)
        for language, text in (("en", "ask {language}"), ("xa", "{prompt} aks"))
    ),
)


def test_the_teacher_sees_the_pivots_prompt_and_the_instruction_and_the_pivots_own_row_is_bare(
    start: Checkpoint, tmp_path: Path
) -> None:
    method = MSD(cot="none", answer_instruction="{prompt} in {language}")
    bare = "<bos><|user|>ask {language}<eos><|assistant|>"
    assert contexts(method, start, tmp_path, PAIR) == [
        bare,
        "<bos><|user|>ask {language} in Xanish<eos><|assistant|>",
    ]
    literal = MSD(cot_instruction="{prompt}! Think, then speak {language}.")
    assert contexts(literal, start, tmp_path, PAIR) == [
        bare,
        "<bos><|user|>ask {language}! Think, then speak Xanish.<eos><|assistant|>",
    ]
    nameless = replace(PAIR, names={})
    assert contexts(method, start, tmp_path, nameless)[1] == "<bos><|user|>ask {language} in xa<eos><|assistant|>"


def test_prefilled_reasoning_is_what_the_start_model_writes_greedily(start: Checkpoint, tmp_path: Path) -> None:
    method = MSD(
        cot="prefilled", analysis_instruction="judge {prompt}", follow_up_instruction="now in {language}", **SHORT
    )
    pivot, other = contexts(method, start, tmp_path, PAIR)
    loaded = models.load(start, device="cpu")
    asked = "<bos><|user|>judge ask {language}<eos><|assistant|>"
    ids = torch.tensor([loaded.tokenizer(asked, add_special_tokens=False)["input_ids"]])
    written = loaded.model.generate(
        input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=6, do_sample=False, pad_token_id=0
    )
    reasoning = loaded.tokenizer.decode(written[0, ids.shape[1] :], skip_special_tokens=True).strip()
    assert pivot == "<bos><|user|>ask {language}<eos><|assistant|>"
    assert other == f"{asked}{reasoning}<eos><|user|>now in Xanish<eos><|assistant|>"


def test_the_context_of_opsa_depends_on_whether_the_prompt_is_harmful(start: Checkpoint, tmp_path: Path) -> None:
    method = MSD(
        context="type_conditional", cot="none", harmful_instruction="bad: {prompt}", benign_instruction="good: {prompt}"
    )
    rows = tuple(replace(row, harmful=row.language == "xa") for row in PAIR.examples)
    assert contexts(method, start, tmp_path, replace(PAIR, examples=rows)) == [
        "<bos><|user|>good: ask {language}<eos><|assistant|>",
        "<bos><|user|>bad: {prompt} aks<eos><|assistant|>",
    ]


def by_hand(loaded: models.Loaded, objective: Distillation, numbers: range, kind: str) -> float:
    """Return the plain mean divergence, one answer at a time, teacher and student being one model."""
    means = []
    for number in numbers:
        lesson, answer = objective.lessons[number], objective.answers[number]
        with torch.no_grad():
            student, teacher = (
                loaded.model(input_ids=torch.tensor([[*prompt, *answer]]))
                .logits[0, len(prompt) - 1 : -1]
                .log_softmax(-1)
                for prompt in (lesson.student, lesson.teacher)
            )
        pair = (student, teacher) if kind == "forward_kl" else (teacher, student)
        means.append(kl_div(*pair, log_target=True, reduction="sum").item() / len(answer))
    return float(np.mean(means))


@pytest.mark.parametrize("policy", ["on", "off"])
@pytest.mark.parametrize("kind", ["reverse_kl", "forward_kl"])
def test_without_weights_the_loss_is_the_plain_mean_divergence(
    start: Checkpoint, tmp_path: Path, policy: str, kind: str
) -> None:
    method = MSD(policy=policy, divergence=kind, weighting="none", **SHORT)
    objective, loaded, _ = prepared(method, start, log(tmp_path / "run"))
    terms = objective(loaded.model, range(4), 0)
    expected = by_hand(loaded, objective, range(4), kind)
    assert expected > 1e-4
    assert terms.loss.item() == pytest.approx(expected, rel=1e-3)
    assert terms.values["msd/divergence"] == pytest.approx(expected, rel=1e-3)
    assert terms.values["msd/weight_mean"] == 1


def move_apart(student: models.Loaded) -> None:
    """Make a student that differs from its teacher by more than rounding."""
    with torch.no_grad():
        student.model.lm_head.weight.add_(torch.linspace(-0.1, 0.1, 262)[:, None])


def test_weights_multiply_the_divergence_and_carry_no_gradient(start: Checkpoint, tmp_path: Path) -> None:
    method = MSD(weighting="student", **SHORT)
    objective, loaded, _ = prepared(method, start, log(tmp_path / "run"))
    move_apart(loaded)
    terms = objective(loaded.model, range(4), 0)
    terms.loss.backward()
    found = {name: weight.grad.clone() for name, weight in loaded.model.named_parameters()}
    # The same with the weights computed beforehand, as numbers.
    loaded.model.zero_grad()
    parts = []
    for number in range(4):
        answers, student, teacher, _ = objective._score(loaded.model, [number])
        numbers = torch.tensor(method.weigh(student.detach(), teacher, answers).tolist())
        each = kl_div(teacher, student, log_target=True, reduction="none").sum(-1)
        parts.append((numbers * each).mean())
    torch.stack(parts).mean().backward()
    assert terms.loss.item() == pytest.approx(torch.stack(parts).mean().item(), rel=1e-4)
    for name, weight in loaded.model.named_parameters():
        torch.testing.assert_close(found[name], weight.grad, atol=2e-6, rtol=1e-3)
        assert found[name].abs().max() > 1e-4


@pytest.mark.parametrize("lora_rank", [0, 4])
def test_identical_contexts_teach_exactly_nothing(start: Checkpoint, tmp_path: Path, lora_rank: int) -> None:
    pivot = tuple(row for row in tiny.corpus().examples if row.language == "en")
    only = Corpus(pivot="en", languages=("en",), examples=pivot)
    run = trained(MSD(**SHORT), start, log(tmp_path / "run", lora_rank=lora_rank), only)
    assert [step["msd/divergence"] for step in run.curve] == [0, 0]
    assert [step["grad_norm"] for step in run.curve] == [0, 0]
    assert run.facts["weight_change"] == 0
    assert run.facts["teacher_opening_jsd"] == 0


@pytest.mark.parametrize("policy", ["on", "off"])
@pytest.mark.parametrize("fields", [{}, {"scale": "running_mean"}, {"aggregate": "token", "retention": 0.5}], ids=str)
def test_micro_batches_change_nothing(
    start: Checkpoint, tmp_path: Path, policy: str, fields: dict[str, object]
) -> None:
    method = MSD(policy=policy, max_new_tokens=60, **fields)
    whole = trained(method, start, log(tmp_path / "whole")).curve
    parts = trained(method, start, log(tmp_path / "parts", micro_batch=1)).curve
    assert whole[0]["msd/length"] != round(whole[0]["msd/length"])  # answers of different lengths
    for one, other in zip(whole, parts, strict=True):
        assert set(one) == set(other)
        for name in one:
            assert one[name] == pytest.approx(other[name], rel=1e-4, abs=1e-6), name


@pytest.mark.parametrize("policy", ["on", "off"])
def test_equal_seeds_give_equal_weights_and_other_seeds_others(start: Checkpoint, tmp_path: Path, policy: str) -> None:
    method = MSD(policy=policy, **SHORT)
    one, same, other = (
        weights(trained(method, start, log(tmp_path / name, seed))) for name, seed in (("a", 1), ("b", 1), ("c", 2))
    )
    assert one == same
    assert one != other


def test_off_policy_learns_from_the_stored_answers_whatever_the_seed(start: Checkpoint, tmp_path: Path) -> None:
    method = MSD(policy="off", **SHORT)
    first, loaded, _ = prepared(method, start, log(tmp_path / "one", 1, steps=30))  # enough to see all rows
    (file,) = (tmp_path / "shared").iterdir()
    stored, stamp = json.loads(file.read_text()), file.stat().st_mtime_ns
    second, _, _ = prepared(method, start, log(tmp_path / "two", 2, steps=30))
    assert file.stat().st_mtime_ns == stamp
    for objective in (first, second):
        assert {tuple(lesson.answer) for lesson in objective.lessons} == {tuple(answer) for answer in stored.values()}
    # Another hand wrote the file: its tokens are what the loss is computed on.
    file.write_text(json.dumps({name: [70, 71] for name in stored}))
    third, _, _ = prepared(method, start, log(tmp_path / "three", 3, steps=30))
    assert all(lesson.answer == [70, 71] for lesson in third.lessons)
    third(loaded.model, range(2), 0)
    assert set(map(tuple, third.answers.values())) == {(70, 71)}
    assert third.sampled_tokens == 0


def test_on_policy_samples_anew_from_the_student_at_each_step(start: Checkpoint, tmp_path: Path) -> None:
    objective, loaded, _ = prepared(MSD(**SHORT), start, log(tmp_path / "run"))
    objective(loaded.model, range(4), 0)
    before = dict(objective.answers)
    objective.step = -1
    objective(loaded.model, range(4), 0)
    assert objective.answers == before
    other, _, _ = prepared(MSD(**SHORT), start, log(tmp_path / "other", seed=1))
    other.lessons = objective.lessons
    other(loaded.model, range(4), 0)
    assert not any(other.answers[number] == answer for number, answer in before.items())
    with torch.no_grad():  # a student that ends every answer at once
        for weight in loaded.model.parameters():
            weight.zero_()
        loaded.model.model.norm.weight.fill_(1.0)
        loaded.model.model.embed_tokens.weight.fill_(1.0)
        loaded.model.lm_head.weight[loaded.tokenizer.eos_token_id] = 10.0
    objective(loaded.model, range(4, 8), 1)
    assert list(objective.answers.values()) == [[loaded.tokenizer.eos_token_id]] * 4


def test_the_share_of_benign_prompts_and_of_languages_is_exact(tmp_path: Path) -> None:
    run = log(tmp_path / "run", steps=10, batch_size=8)
    for share, pivot_rows, languages in ((0.25, True, 4), (0.0, False, 3), (1.0, True, 4)):
        rows = MSD(benign_share=share, pivot_rows=pivot_rows).rows(tiny.corpus(), run)
        assert len(rows) == 80
        assert sum(not row.harmful for row in rows) == round(80 * share)
        counts = [sum(row.language == language for row in rows) for language in tiny.LANGUAGES]
        assert sum(count > 0 for count in counts) == languages
        assert max(count for count in counts if count) - min(count for count in counts if count) <= 2
        assert pivot_rows or counts[0] == 0


def test_running_mean_weights_have_mean_one_and_a_cap_holds(start: Checkpoint, tmp_path: Path) -> None:
    fields = {"weighting": "student", "aggregate": "token", **SHORT}
    literal, loaded, _ = prepared(MSD(**fields), start, log(tmp_path / "run"))
    scaled, _, _ = prepared(MSD(scale="running_mean", **fields), start, log(tmp_path / "run"))
    one, other = literal(loaded.model, range(4), 0), scaled(loaded.model, range(4), 0)
    raw = [
        weight
        for number in range(4)
        for answers, student, teacher, _ in [literal._score(loaded.model, [number])]
        for weight in MSD(**fields).weigh(student, teacher, answers).tolist()
    ]
    assert scaled.mean.value == pytest.approx(np.mean(raw))
    assert other.loss.item() == pytest.approx(one.loss.item() / np.mean(raw), rel=1e-4)
    capped, _, _ = prepared(MSD(cap=0.25, **fields), start, log(tmp_path / "run"))
    assert capped(loaded.model, range(4), 0).values["msd/weight_max"] == 0.25


def test_retention_starts_at_zero_and_is_the_forward_kl_from_the_start_model(start: Checkpoint, tmp_path: Path) -> None:
    method = MSD(retention=2.0, benign_share=0.0, **SHORT)
    run = log(tmp_path / "run")
    objective, loaded, _ = prepared(method, start, run)
    assert objective(loaded.model, range(4), 0).values["msd/retention"] == 0
    reference = models.load(start, device="cpu").model
    move_apart(loaded)
    terms = objective(loaded.model, range(4), 0)
    means = []
    for lesson in objective.lessons[:4]:
        prompt, answer = lesson.kept
        ids = torch.tensor([[*prompt, *answer]])
        with torch.no_grad():
            after, before = (
                each(input_ids=ids).logits[0, len(prompt) - 1 : -1].log_softmax(-1)
                for each in (loaded.model, reference)
            )
        means.append(kl_div(after, before, log_target=True, reduction="sum").item() / len(answer))
    assert terms.values["msd/retention"] == pytest.approx(np.mean(means), rel=1e-3)
    alone, _, _ = prepared(replace(method, retention=0.0), start, run)
    distilled = alone(loaded.model, range(4), 0).loss.item()
    assert terms.loss.item() == pytest.approx(distilled + 2.0 * np.mean(means), rel=1e-3)


def test_retention_reads_benign_prompts_of_the_other_languages(start: Checkpoint, tmp_path: Path) -> None:
    run = log(tmp_path / "run", steps=20)
    prepared(MSD(retention=1.0, benign_share=0.0, **SHORT), start, run)
    benign = {(language, id) for language, id, _ in run.read if id in ("p1", "p3", "p5")}
    assert benign == {(language, id) for language in ("xa", "xb", "xc") for id in ("p1", "p3", "p5")}


def test_no_answer_is_read_and_the_pivots_prompts_are_reported(start: Checkpoint, tmp_path: Path) -> None:
    run = trained(MSD(pivot_rows=False, **SHORT), start, log(tmp_path / "run", steps=12))
    assert {answers for _, _, answers in run.read} == {False}
    assert {language for language, _, _ in run.read} == set(tiny.LANGUAGES)
    assert MSD(benign_share=0.0).needs == {"parallel_prompts"}
    assert MSD(benign_share=0.0, retention=1.0).needs == {"parallel_prompts", "benign_prompts"}


@pytest.mark.parametrize("name", sorted(MSD.presets))
def test_presets_train_with_lora_and_towards_the_teacher(start: Checkpoint, tmp_path: Path, name: str) -> None:
    method = MSD(**{**MSD.presets[name].fields, "max_new_tokens": 8})
    run = trained(method, start, log(tmp_path / "run", steps=20, lora_rank=4, batch_size=8, learning_rate=1e-2))
    distance = [step["msd/divergence"] for step in run.curve]
    assert np.mean(distance[-5:]) < 0.7 * np.mean(distance[:5])
    assert {"msd/weight_mean", "msd/weight_max", "msd/early_weight_share", "msd/length"} <= set(run.curve[0])
    assert 0 < run.facts["teacher_opening_jsd"] <= math.log(2)
    assert (run.facts["rollout_tokens"] == 0) == (method.policy == "off")


@pytest.mark.parametrize("teacher", ["ema", "live"])
@pytest.mark.parametrize("lora_rank", [0, 4])
def test_moving_teachers_train(start: Checkpoint, tmp_path: Path, teacher: str, lora_rank: int) -> None:
    method = MSD(teacher=teacher, retention=0.1, **SHORT)
    run = trained(method, start, log(tmp_path / "run", lora_rank=lora_rank, steps=3))
    frozen = trained(MSD(retention=0.1, **SHORT), start, log(tmp_path / "frozen", lora_rank=lora_rank, steps=3))
    losses = [[step["loss"] for step in each.curve] for each in (run, frozen)]
    assert losses[0][0] == losses[1][0]  # all teachers start from the start model
    assert losses[0][2] != losses[1][2]


@pytest.mark.parametrize("fields", [{"scale": "running_mean"}, {"teacher": "ema"}], ids=str)
def test_a_state_that_is_saved_and_loaded_goes_on_as_if_nothing_had_happened(
    start: Checkpoint, tmp_path: Path, fields: dict[str, object]
) -> None:
    made, loaded, _ = prepared(MSD(**fields, **SHORT), start, log(tmp_path / "run"))
    made(loaded.model, range(4), 0)
    torch.save(made.state_dict(), tmp_path / "state.pt")
    again, _, _ = prepared(MSD(**fields, **SHORT), start, log(tmp_path / "run"))
    again.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    with torch.no_grad():
        for weight in loaded.model.parameters():
            weight.mul_(1.5)
    one, other = (each(loaded.model, range(4, 8), 1) for each in (made, again))
    assert one.loss.item() == other.loss.item()
    assert one.values == other.values
    assert made.sampled_tokens == again.sampled_tokens


def test_another_loss_can_be_carried_along(start: Checkpoint, tmp_path: Path) -> None:
    run = log(tmp_path / "run")
    seen, mlc = tiny.corpus(), MLC(every=1)
    MSD(**SHORT).align(start, seen, run, side=lambda loaded: mlc.side(loaded, mlc.groups(seen), "en", run))
    assert {"mlc/loss", "msd/divergence"} <= set(run.curve[0])


def without(language: str, *, harmful: bool) -> Corpus:
    corpus = tiny.corpus()
    rows = tuple(row for row in corpus.examples if row.language != language or row.harmful != harmful)
    return replace(corpus, examples=rows)


def test_a_corpus_that_lacks_prompts_is_refused_with_the_language() -> None:
    with pytest.raises(DataError, match="no harmful prompt in 'xb' that is a translation of one in 'en'"):
        MSD().check(without("xb", harmful=True), None)
    with pytest.raises(DataError, match="no benign prompt in 'xc'"):
        MSD().check(without("xc", harmful=False), None)
    MSD(benign_share=0.0).check(without("xc", harmful=False), None)
    # Translations of nothing: the teacher has no prompt.
    apart = tuple(replace(row, id=f"{row.language}-{row.id}") for row in tiny.corpus().examples)
    with pytest.raises(DataError, match="no harmful prompt in 'xa'"):
        MSD().check(replace(tiny.corpus(), examples=apart), None)
    MSD(context="type_conditional", cot="none").check(replace(tiny.corpus(), examples=apart), None)


def test_a_prompt_that_leaves_no_room_is_named(start: Checkpoint, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="max_length = 14"):
        trained(MSD(cot="none", answer_instruction="{prompt}!", **SHORT), start, log(tmp_path / "run", max_length=14))
