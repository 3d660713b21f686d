"""Distillation: divergences against other formulas, sampling that no batch changes, teachers, shared answers."""

import json
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import nn
from torch.nn.functional import kl_div

from mlbench import models, sampling, tiny
from mlbench.core import Checkpoint
from mlbench.sampling import Decoding, Request, Speaker
from mlbench.training import distil
from mlbench.training.answers import Dialogue
from mlbench.training.rollouts import Samples

torch.set_num_threads(1)

CPU = torch.device("cpu")
PLAIN = Decoding(max_new_tokens=12, temperature=1.0, top_p=1.0)
PROMPTS = ([1, 4, 40, 50, 2, 5], [1, 4, 60, 2, 5], [1, 4, 7, 8, 9, 10, 11, 12, 2, 5])


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    return tiny.model(tmp_path_factory.mktemp("start"))


@pytest.fixture
def loaded(start: Checkpoint) -> models.Loaded:
    return models.load(start, device="cpu")


def random_log_probs(seed: int, tokens: int = 5, vocabulary: int = 7) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (3 * torch.randn(tokens, vocabulary, dtype=torch.float64, generator=generator)).log_softmax(-1)


def test_reverse_and_forward_kl_are_those_of_torch_and_not_each_other() -> None:
    student, teacher = random_log_probs(1), random_log_probs(2)
    # kl_div(input, target) is KL(target || input)
    reverse = kl_div(teacher, student, log_target=True, reduction="none").sum(-1)
    forward = kl_div(student, teacher, log_target=True, reduction="none").sum(-1)
    torch.testing.assert_close(distil.divergence(student, teacher, "reverse_kl"), reverse)
    torch.testing.assert_close(distil.divergence(student, teacher, "forward_kl"), forward)
    assert not torch.allclose(reverse, forward)


def test_divergences_equal_their_formulas_in_numpy() -> None:
    student, teacher = random_log_probs(3), random_log_probs(4)
    s, t = np.exp(student.numpy()), np.exp(teacher.numpy())
    middle = (s + t) / 2
    expected = {
        "reverse_kl": (s * np.log(s / t)).sum(-1),
        "forward_kl": (t * np.log(t / s)).sum(-1),
        "jsd": ((s * np.log(s / middle)).sum(-1) + (t * np.log(t / middle)).sum(-1)) / 2,
    }
    for kind, values in expected.items():
        np.testing.assert_allclose(distil.divergence(student, teacher, kind), values, rtol=1e-9)


@pytest.mark.parametrize("kind", ["reverse_kl", "forward_kl", "jsd"])
def test_slopes_are_those_of_the_plain_formulas(kind: distil.Kind) -> None:
    logits = torch.randn(4, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(5))
    teacher = random_log_probs(6, 4, 6)

    def plain(student: torch.Tensor) -> torch.Tensor:
        middle = ((student.exp() + teacher.exp()) / 2).log()
        kl = lambda p, q: (p.exp() * (p - q)).sum()  # noqa: E731
        pairs = {"reverse_kl": kl(student, teacher), "forward_kl": kl(teacher, student)}
        return pairs.get(kind, (kl(student, middle) + kl(teacher, middle)) / 2)

    slopes = []
    for loss in (lambda student: distil.divergence(student, teacher, kind).sum(), plain):
        leaf = logits.clone().requires_grad_()
        (slope,) = torch.autograd.grad(loss(leaf.log_softmax(-1)), leaf)
        slopes.append(slope)
    torch.testing.assert_close(slopes[0], slopes[1])


@pytest.mark.parametrize("kind", ["reverse_kl", "forward_kl", "jsd"])
def test_equal_models_are_exactly_no_distance_apart_and_have_exactly_no_gradient(kind: distil.Kind) -> None:
    logits = torch.randn(50, 300, generator=torch.Generator().manual_seed(7)).requires_grad_()
    student = logits.log_softmax(-1)
    found = distil.divergence(student, student.detach(), kind)
    (slope,) = torch.autograd.grad(found.sum(), logits)
    assert found.abs().max().item() == 0
    assert slope.abs().max().item() == 0


def test_opposite_certainties_are_ln_2_apart_and_nothing_overflows() -> None:
    certain = torch.tensor([[0.0, -500.0], [0.0, -500.0]]).log_softmax(-1)
    other = certain.flip(-1)
    np.testing.assert_allclose(distil.divergence(certain, other, "jsd"), math.log(2), rtol=1e-6)
    np.testing.assert_allclose(distil.divergence(certain, other, "reverse_kl"), 500, rtol=1e-6)


@pytest.mark.parametrize("architecture", ["llama", "gemma2"])
def test_log_probs_are_those_of_each_answer_alone(architecture: str, tmp_path: Path) -> None:
    loaded = models.load(tiny.model(tmp_path, architecture), device="cpu")
    dialogues = [Dialogue(prompt, [30, 31, 2][: 1 + at]) for at, prompt in enumerate(PROMPTS)]
    with torch.no_grad():
        together = distil.log_probs(loaded.model, dialogues, 0, CPU)
        alone = []
        for prompt, answer in dialogues:
            logits = loaded.model(input_ids=torch.tensor([[*prompt, *answer]])).logits[0]
            # The token at place i is predicted at place i - 1.
            alone.append(logits[len(prompt) - 1 : -1].log_softmax(-1))
    assert together.shape == (1 + 2 + 3, 262)
    torch.testing.assert_close(together, torch.cat(alone), atol=1e-5, rtol=1e-5)


def requests(prompts: Sequence[list[int]], limit: int = 12) -> list[Request]:
    return [Request(prompt, limit, seed=at) for at, prompt in enumerate(prompts)]


def test_an_answer_is_the_same_whatever_is_sampled_beside_it(loaded: models.Loaded) -> None:
    speaker = loaded.speaker
    together = sampling.sample(loaded.model, requests(PROMPTS), PLAIN, speaker)
    alone = [sampling.sample(loaded.model, [one], PLAIN, speaker)[0] for one in requests(PROMPTS)]
    assert together == alone
    assert len({tuple(answer) for answer in together}) == 3


def test_a_sampled_answer_is_what_its_draws_select_without_cache_and_padding(loaded: models.Loaded) -> None:
    (answer,) = sampling.sample(
        loaded.model, [Request(PROMPTS[0], 6, seed=3)], PLAIN._replace(temperature=0.7), Speaker(0, ())
    )
    draws = torch.rand(6, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    row = list(PROMPTS[0])
    for draw in draws:
        with torch.no_grad():
            logits = loaded.model(input_ids=torch.tensor([row])).logits[0, -1].double()
        sums = np.cumsum(np.exp(logits.numpy() / 0.7))
        row.append(int(np.argmax(sums > draw.item() * sums[-1])))
    assert answer == row[len(PROMPTS[0]) :]


def test_greedy_answers_are_those_of_generate(loaded: models.Loaded) -> None:
    greedy = PLAIN._replace(temperature=0.0)
    found = sampling.sample(loaded.model, requests(PROMPTS), greedy, loaded.speaker)
    for prompt, answer in zip(PROMPTS, found, strict=True):
        ids = torch.tensor([prompt])
        expected = loaded.model.generate(
            input_ids=ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=12, pad_token_id=0
        )
        assert answer == expected[0, len(prompt) :].tolist()


def test_tokens_are_drawn_as_often_as_they_are_likely() -> None:
    logits = torch.tensor([0.5, 0.3, 0.2]).log().expand(10_000, 3)
    draws = torch.rand(10_000, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    share = lambda decoding: torch.bincount(sampling.choose(logits, draws, decoding), minlength=3) / 10_000  # noqa: E731
    torch.testing.assert_close(share(PLAIN), torch.tensor([0.5, 0.3, 0.2]), atol=0.015, rtol=0)
    # squares: .25, .09, .04 of .38
    colder = torch.tensor([0.658, 0.237, 0.105])
    torch.testing.assert_close(share(PLAIN._replace(temperature=0.5)), colder, atol=0.015, rtol=0)
    # .5 is not enough for .6, .5 + .3 is
    torch.testing.assert_close(share(PLAIN._replace(top_p=0.6)), torch.tensor([0.625, 0.375, 0.0]), atol=0.015, rtol=0)
    assert share(PLAIN._replace(temperature=0.0)).tolist() == [1, 0, 0]


class Script(nn.Module):
    """A model that is certain of what comes next: the last token plus one."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))
        self.seen: list[tuple[list[list[int]], list[list[int]]]] = []

    def forward(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor, position_ids: torch.Tensor, **_: object
    ) -> object:
        self.seen.append((attention_mask.tolist(), position_ids.tolist()))
        logits = nn.functional.one_hot(input_ids[:, -1:] + 1, 50) * 100.0
        return type("Output", (), {"logits": logits, "past_key_values": None})


def test_an_answer_ends_with_its_stop_token_or_at_its_own_limit() -> None:
    asked = [Request([1, 5], 4, 0), Request([6], 9, 0), Request([3, 3, 30], 2, 0)]
    assert sampling.sample(Script(), asked, PLAIN, Speaker(0, (9, 12))) == [[6, 7, 8, 9], [7, 8, 9], [31, 32]]


def test_positions_count_from_a_rows_first_token_and_padding_is_not_seen() -> None:
    model = Script()
    sampling.sample(model, [Request([1, 5], 2, 0), Request([3, 3, 3, 30], 2, 0)], PLAIN, Speaker(0, ()))
    assert model.seen == [
        ([[0, 0, 1, 1], [1, 1, 1, 1]], [[0, 0, 0, 1], [0, 1, 2, 3]]),
        ([[0, 0, 1, 1, 1], [1, 1, 1, 1, 1]], [[2], [4]]),
    ]


def test_sampling_leaves_the_mode_and_the_global_generator_alone(loaded: models.Loaded) -> None:
    loaded.model.train()
    torch.manual_seed(0)
    before = torch.random.get_rng_state()
    sampling.sample(loaded.model, requests(PROMPTS), PLAIN, loaded.speaker)
    assert loaded.model.training
    assert torch.equal(torch.random.get_rng_state(), before)


def adapted(loaded: models.Loaded) -> nn.Module:
    made = get_peft_model(loaded.model, LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM"))
    with torch.no_grad():
        for name, weight in made.named_parameters():
            if "lora_B" in name:
                weight.fill_(0.05)
    return made


@pytest.mark.parametrize("lora", [True, False])
def test_a_frozen_teacher_answers_as_the_start_model_after_the_student_has_moved(
    start: Checkpoint, loaded: models.Loaded, lora: bool
) -> None:
    teacher = distil.Teacher("frozen", loaded.model, lora=lora)
    student = adapted(loaded) if lora else loaded.model
    if not lora:
        with torch.no_grad():
            for weight in student.parameters():
                weight.add_(0.05)
    dialogue = [Dialogue(PROMPTS[0], [30, 31])]
    with torch.no_grad():
        untouched = distil.log_probs(models.load(start, device="cpu").model, dialogue, 0, CPU)
        moved = distil.log_probs(student, dialogue, 0, CPU)
    torch.testing.assert_close(teacher.log_probs(student, dialogue, 0), untouched, rtol=0, atol=0)
    assert not torch.allclose(moved, untouched, atol=1e-3)
    with torch.no_grad():  # and the student is still where it was
        torch.testing.assert_close(distil.log_probs(student, dialogue, 0, CPU), moved, rtol=0, atol=0)


@pytest.mark.parametrize("lora", [True, False])
def test_an_average_teacher_follows_once_per_step(loaded: models.Loaded, lora: bool) -> None:
    student = adapted(loaded) if lora else loaded.model
    teacher = distil.Teacher("ema", loaded.model, lora=lora, rate=0.25)
    teacher.follow(student, 0)
    name, weight = next((name, weight) for name, weight in student.named_parameters() if weight.requires_grad)
    before = weight.detach().clone()
    with torch.no_grad():
        weight.add_(1.0)
    teacher.follow(student, 1)
    teacher.follow(student, 1)  # the second micro-batch of the step
    torch.testing.assert_close(teacher.weights[name], before + 0.25)
    teacher.follow(student, 2)
    torch.testing.assert_close(teacher.weights[name], before + 0.25 + 0.75 * 0.25)


def test_the_running_mean_starts_at_the_first_step_and_forgets_a_hundredth() -> None:
    mean = distil.RunningMean()
    mean.add(torch.tensor([0.2, 0.4]))  # the micro-batches of one step, weighted by their tokens
    mean.add(torch.tensor([0.9]))
    mean.fold()
    assert mean.value == pytest.approx(0.5)
    mean.add(torch.tensor([1.5]))
    mean.fold()
    assert mean.value == pytest.approx(0.99 * 0.5 + 0.01 * 1.5)


def test_dropout_is_off_even_while_training(tmp_path: Path) -> None:
    loaded = models.load(tiny.model(tmp_path), device="cpu")
    loaded.model.add_module("drop", nn.Dropout(0.5))
    for layer in loaded.model.model.layers:
        layer.self_attn.attention_dropout = 0.5
    loaded.model.train()
    dialogue = [Dialogue(PROMPTS[2], [30, 31])]
    assert not torch.equal(*(distil.log_probs(loaded.model, dialogue, 0, CPU) for _ in range(2)))
    distil.without_dropout(loaded.model)
    assert torch.equal(*(distil.log_probs(loaded.model, dialogue, 0, CPU) for _ in range(2)))
    assert loaded.model.drop.p == 0


def test_stored_answers_are_read_back_byte_for_byte_and_new_ones_added(loaded: models.Loaded, tmp_path: Path) -> None:
    samples = Samples(tmp_path, loaded, PLAIN)
    first = samples.answers(PROMPTS[:2], [12, 12])
    stored = json.loads(samples.path.read_text())
    assert sorted(stored.values()) == sorted(first)
    # Whatever the file says is the answer.
    name = next(name for name, answer in stored.items() if answer == first[0])
    samples.path.write_text(json.dumps(stored | {name: [77, 78]}))
    again = Samples(tmp_path, loaded, PLAIN).answers(PROMPTS, [12, 12, 12])
    assert again[:2] == [[77, 78], first[1]]
    assert len(json.loads(samples.path.read_text())) == 3
    assert [path.name for path in tmp_path.iterdir()] == [samples.path.name]


def test_answers_do_not_depend_on_who_asks_for_them_first(loaded: models.Loaded, tmp_path: Path) -> None:
    forwards = Samples(tmp_path / "one", loaded, PLAIN).answers(PROMPTS, [12, 5, 12])
    backwards = Samples(tmp_path / "two", loaded, PLAIN)
    assert [backwards.answers([prompt], [limit])[0] for prompt, limit in zip(PROMPTS, [12, 5, 12], strict=True)] == (
        forwards
    )


def test_another_model_decoding_or_adapter_is_another_file(
    start: Checkpoint, loaded: models.Loaded, tmp_path: Path
) -> None:
    other = models.load(tiny.model(tmp_path / "other", seed=1), device="cpu")
    adapter = tmp_path / "adapter"
    adapted(models.load(start, device="cpu")).save_pretrained(adapter)
    further = models.load(Checkpoint(base=start.base, adapters=(str(adapter),)), device="cpu")
    files = {
        Samples(tmp_path, loaded, PLAIN).path,
        Samples(tmp_path, other, PLAIN).path,
        Samples(tmp_path, further, PLAIN).path,
        Samples(tmp_path, loaded, PLAIN._replace(temperature=0.9)).path,
    }
    assert len(files) == 4
    assert Samples(tmp_path, models.load(start, device="cpu"), PLAIN).path in files
