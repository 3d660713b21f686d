"""Distillation on sampled answers: the teacher, how far two models are apart token by token, and the loss of a step.

The answers of one optimiser step are sampled together before its first micro-batch, so that its size changes nothing
beyond rounding; see `mlbench.sampling`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call

from mlbench import sampling
from mlbench.core import Run
from mlbench.models import Loaded
from mlbench.sampling import Decoding, Request, Speaker, Tokens, evaluation
from mlbench.training import rollouts
from mlbench.training.answers import Dialogue, block
from mlbench.training.lessons import Lesson
from mlbench.training.side import Terms, gather

Kind = Literal["reverse_kl", "forward_kl", "jsd"]
TeacherKind = Literal["frozen", "ema", "live"]
Weigh = Callable[[Tensor, Tensor, Sequence[Tokens]], Tensor]
"""(student's, teacher's log-probabilities at the answers, (tokens, vocabulary); the answers) -> weights, (tokens,)."""

EARLY = 10
"""Opening tokens of which the share of the weight is logged."""
MEMORY = 0.99
"""How much of the running mean of the weights stays after a step."""


def divergence(student: Tensor, teacher: Tensor, kind: Kind) -> Tensor:
    """Return the divergence of each token, (tokens,), at least 0 and exactly 0 with no gradient for equal models.

    Args:
        student: (tokens, vocabulary), log-probabilities.
        teacher: The same; no gradient flows into it.
        kind: "reverse_kl" is KL(student || teacher), "forward_kl" KL(teacher || student), "jsd" the mean of both
            models' KL to their average.
    """
    teacher = teacher.detach()
    if kind == "reverse_kl":
        return _kl(student, teacher)
    if kind == "forward_kl":
        return _kl(teacher, student)
    # The average may be held fixed: of all distributions it makes the sum smallest, so its own slope is zero.
    top, low = torch.maximum(student, teacher).detach(), torch.minimum(student, teacher).detach()
    average = top + ((low - top).expm1() / 2).log1p()
    return (_kl(student, average) + _kl(teacher, average)) / 2


def _kl(p: Tensor, q: Tensor) -> Tensor:
    # sum_v p (log p - log q) - p + q: the last two sum to zero; with them no summand is negative, and rounding makes
    # no gradient where p = q, which an optimiser of Adam's kind would blow up to full steps.
    return (p.exp() * (p - q) - p.exp() + q.exp()).sum(-1)


def log_probs(forward: Callable[..., Any], dialogues: Sequence[Dialogue], pad: int, device: torch.device) -> Tensor:
    """Return the log-probabilities at the tokens of the answers, one answer after the other, (tokens, vocabulary).

    In float32. Logits of the prompts are not computed, except beside an answer that starts earlier.
    """
    padded, counts = block(dialogues, pad, device)
    first = min(len(each.prompt) for each in dialogues)
    kept = padded.ids.shape[1] - first + 1
    output = forward(input_ids=padded.ids, attention_mask=padded.mask, use_cache=False, logits_to_keep=kept)
    logits = output.logits[:, -kept:-1][counts[:, first:]]
    found: Tensor = logits.float().log_softmax(-1)
    return found


class Teacher:
    """The start model, a moving average of the student, or the student itself; never with gradient."""

    def __init__(self, kind: TeacherKind, start: nn.Module, *, lora: bool, rate: float = 0.0) -> None:
        """Remember the start model where adapters cannot be switched off to have it back.

        Args:
            kind: "frozen", "ema" or "live".
            start: The start model, before it gets an adapter.
            lora: Whether adapters are trained rather than all weights.
            rate: How far a moving average goes towards the student after each step.
        """
        self.kind = kind
        self.lora = lora
        self.rate = rate
        self.step = 0
        self.weights: dict[str, Tensor] = {}
        if kind == "frozen" and not lora:
            self.weights = _copies(start)

    def follow(self, model: nn.Module, step: int) -> None:
        """Move the average towards the student, once per step after the first."""
        if self.kind != "ema" or (self.weights and step == self.step):
            return
        student = {name: weight.detach() for name, weight in unwrap(model).named_parameters() if weight.requires_grad}
        if self.weights:
            for name, weight in student.items():
                self.weights[name] = self.weights[name].to(weight.device).lerp_(weight, self.rate)
        else:
            assert step == 0, "the average starts from the start model"
            self.weights = {name: weight.clone() for name, weight in student.items()}
        self.step = step

    @torch.no_grad()
    def log_probs(self, model: nn.Module, dialogues: Sequence[Dialogue], pad: int) -> Tensor:
        """Return the teacher's log-probabilities at the answers, given the student; see `log_probs`."""
        inner: Any = unwrap(model)
        device = next(inner.parameters()).device
        with evaluation(inner):
            if self.weights:
                call = lambda **inputs: functional_call(inner, self.weights, (), inputs)  # noqa: E731
                return log_probs(call, dialogues, pad, device)
            if self.kind == "frozen":
                with inner.disable_adapter():
                    return log_probs(inner, dialogues, pad, device)
            return log_probs(inner, dialogues, pad, device)


def _copies(model: nn.Module) -> dict[str, Tensor]:
    return {name: weight.detach().clone() for name, weight in model.named_parameters()}


def unwrap(model: nn.Module) -> nn.Module:
    """Return the model inside a data-parallel wrapper."""
    inner: nn.Module = getattr(model, "module", model)
    return inner


def without_dropout(model: nn.Module) -> None:
    """Switch dropout off: with it a student differs from a teacher of the same weights."""
    for module in model.modules():
        name = "p" if isinstance(module, nn.Dropout) else "attention_dropout"
        if hasattr(module, name):
            setattr(module, name, 0.0)


class RunningMean:
    """Mean of what steps brought, forgetting older ones; known before a step starts, so no micro-batch changes it."""

    def __init__(self) -> None:
        """Know nothing yet."""
        self.value: float | None = None
        self.total = 0.0
        self.count = 0

    def add(self, values: Tensor) -> None:
        """Take in values of the current step."""
        self.total += values.double().sum().item()
        self.count += values.numel()

    def fold(self) -> None:
        """End a step: the first one sets the mean, a later one moves it."""
        parts = gather((self.total, self.count))
        mean = sum(total for total, _ in parts) / sum(count for _, count in parts)
        self.value = mean if self.value is None else MEMORY * self.value + (1 - MEMORY) * mean
        self.total, self.count = 0.0, 0


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How a distillation turns log-probabilities into a loss.

    Attributes:
        name: Prefix of its curves.
        divergence: Between teacher and student at a token.
        weigh: Weights of the tokens; no gradient flows through them.
        running_mean: Whether the weights are divided by their running mean.
        cap: Largest weight after that, None for no limit.
        aggregate: "sequence" is the mean over answers of each one's mean, "token" the mean over all tokens of a step.
        retention: Weight of KL(start model || student) on the kept answers.
        decoding: How the student samples.
    """

    name: str
    divergence: Kind
    weigh: Weigh
    running_mean: bool
    cap: float | None
    aggregate: Literal["sequence", "token"]
    retention: float
    decoding: Decoding


class Scored(NamedTuple):
    """Answers, and what student and teacher make of them.

    Attributes:
        answers: Their tokens.
        student: (tokens, vocabulary), log-probabilities, one answer after the other.
        teacher: The same, without gradient.
        read: Tokens that both have read.
    """

    answers: list[Tokens]
    student: Tensor
    teacher: Tensor
    read: int


class Distillation:
    """The objective: mean over answers of the weighted divergence between teacher and student, token by token."""

    def __init__(
        self,
        recipe: Recipe,
        lessons: Sequence[Lesson],
        teacher: Teacher,
        frozen: Teacher | None,
        speaker: Speaker,
        run: Run,
    ) -> None:
        """Set up a training.

        Args:
            recipe: The loss.
            lessons: In the order of the steps, `batch_size` of them each.
            teacher: Whom the student is compared with, in the teacher's context.
            frozen: The start model, for the answers that are kept; None where there are none.
            speaker: Of the model.
            run: Its seed decides what the student samples.
        """
        self.recipe = recipe
        self.lessons = lessons
        self.teacher = teacher
        self.frozen = frozen
        self.speaker = speaker
        self.run = run
        self.mean = RunningMean()
        self.step = -1
        self.answers: Mapping[int, Tokens] = {}
        self.sampled_tokens = 0

    def __call__(self, model: nn.Module, numbers: Sequence[int], step: int) -> Terms:
        """Return the loss of some of a step's lessons."""
        if step != self.step:
            self._begin(model, step, len(numbers))
        answers, student, teacher, read = self._score(model, numbers)
        each = divergence(student, teacher, self.recipe.divergence)
        weights = self._weights(student, teacher, answers)
        loss = self._mean(each * weights, answers)
        curves = {"divergence": self._mean(each.detach(), answers).item(), **self._curves(weights, answers)}
        kept = [lesson.kept for lesson in (self.lessons[number] for number in numbers) if lesson.kept]
        if kept:
            moved = self._retention(model, kept)
            curves["retention"] = moved.item()
            loss = loss + self.recipe.retention * moved
        values = {f"{self.recipe.name}/{name}": value for name, value in curves.items()}
        return Terms(loss, values, read + sum(len(each.prompt) + len(each.answer) for each in kept))

    def _score(self, model: nn.Module, numbers: Sequence[int]) -> Scored:
        answers = [self.answers[number] for number in numbers]
        told = [Dialogue(self.lessons[number].teacher, self.answers[number]) for number in numbers]
        asked = [Dialogue(self.lessons[number].student, self.answers[number]) for number in numbers]
        teacher = self.teacher.log_probs(model, told, self.speaker.pad)
        student = log_probs(model, asked, self.speaker.pad, _device(model))
        return Scored(answers, student, teacher, sum(len(each.prompt) + len(each.answer) for each in (*told, *asked)))

    def state_dict(self) -> dict[str, Any]:
        """Return what changes while it trains."""
        teacher, mean = self.teacher, self.mean
        average = teacher.weights if teacher.kind == "ema" else {}
        return {
            "mean": [mean.value, mean.total, mean.count],
            "average": average,
            "average_step": teacher.step,
            "sampled_tokens": self.sampled_tokens,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a state."""
        teacher, mean = self.teacher, self.mean
        mean.value, mean.total, mean.count = state_dict["mean"]
        self.sampled_tokens = state_dict["sampled_tokens"]
        if teacher.kind == "ema":
            teacher.weights, teacher.step = state_dict["average"], state_dict["average_step"]

    def _begin(self, model: nn.Module, step: int, micro_batch: int) -> None:
        self.step = step
        self.teacher.follow(model, step)
        size = self.run.training.batch_size
        numbers = range(step * size, (step + 1) * size)
        given = {number: self.lessons[number].answer for number in numbers}
        stored = {number: answer for number, answer in given.items() if answer is not None}
        self.answers = stored or self._rollouts(unwrap(model), numbers)
        if self.recipe.running_mean:
            if self.mean.value is None:
                self._first_mean(model, numbers, micro_batch)
            self.mean.fold()

    def _rollouts(self, model: nn.Module, numbers: Sequence[int]) -> dict[int, Tokens]:
        mine = rollouts.share(numbers)
        requests = [
            Request(self.lessons[number].student, self.lessons[number].limit, sampling.seed(self.run.seed, number))
            for number in mine
        ]
        found = sampling.sample(model, requests, self.recipe.decoding, self.speaker)
        merged: dict[int, Tokens] = {}
        for part in gather(dict(zip(mine, found, strict=True))):
            merged |= part
        self.sampled_tokens += sum(map(len, merged.values()))
        return merged

    @torch.no_grad()
    def _first_mean(self, model: nn.Module, numbers: Sequence[int], micro_batch: int) -> None:
        """Weigh the first step's answers before it starts."""
        for at in range(0, len(numbers), micro_batch):
            scored = self._score(unwrap(model), numbers[at : at + micro_batch])
            self.mean.add(self.recipe.weigh(scored.student, scored.teacher, scored.answers))

    @torch.no_grad()
    def _weights(self, student: Tensor, teacher: Tensor, answers: Sequence[Tokens]) -> Tensor:
        raw = self.recipe.weigh(student, teacher, answers)
        if self.recipe.running_mean:
            self.mean.add(raw)
            # All weights can be zero, as where the student agrees with a certain teacher.
            raw = raw / max(self.mean.value or 0.0, 1e-12)
        return raw if self.recipe.cap is None else raw.clamp(max=self.recipe.cap)

    def _mean(self, each: Tensor, answers: Sequence[Tokens]) -> Tensor:
        if self.recipe.aggregate == "sequence":
            return torch.stack([part.mean() for part in torch.split(each, _lengths(answers))]).mean()
        # Divided by the tokens of the whole step, whatever part of them is in this micro-batch.
        usual = sum(_lengths(self.answers.values())) / len(self.answers)
        return each.sum() / (usual * len(answers))

    def _curves(self, weights: Tensor, answers: Sequence[Tokens]) -> dict[str, float]:
        parts = torch.split(weights, _lengths(answers))
        curves = {
            "weight_mean": [part.mean() for part in parts],
            "weight_max": [part.max() for part in parts],
            "early_weight_share": [part[:EARLY].sum() / part.sum().clamp(min=1e-12) for part in parts],
            "length": [weights.new_tensor(len(answer)) for answer in answers],
            "truncated": [weights.new_tensor(answer[-1] not in self.speaker.stops) for answer in answers],
        }
        return {name: torch.stack(values).mean().item() for name, values in curves.items()}

    def _retention(self, model: nn.Module, kept: Sequence[Dialogue]) -> Tensor:
        assert self.frozen is not None
        before = self.frozen.log_probs(model, kept, self.speaker.pad)
        after = log_probs(model, kept, self.speaker.pad, _device(model))
        each = divergence(after, before, "forward_kl")
        return torch.stack([part.mean() for part in torch.split(each, _lengths(one.answer for one in kept))]).mean()


@torch.no_grad()
def openings(loaded: Loaded, lessons: Sequence[Lesson]) -> dict[str, float]:
    """Return how the teacher's context moves the start model's first answer token.

    Returns:
        `teacher_opening_changed`: share of prompts where the likeliest one is another;
        `teacher_opening_jsd`: mean Jensen-Shannon divergence of the two distributions, at most ln 2.
    """
    pad, device = loaded.tokenizer.pad_token_id, loaded.device
    changed, apart = 0.0, 0.0
    with evaluation(loaded.model):
        for lesson in lessons:
            # The answer's token itself is not looked at.
            prompts = (lesson.student, lesson.teacher)
            one, other = (log_probs(loaded.model, [Dialogue(prompt, [pad])], pad, device) for prompt in prompts)
            changed += float(one.argmax() != other.argmax())
            apart += divergence(one, other, "jsd").item()
    return {"teacher_opening_changed": changed / len(lessons), "teacher_opening_jsd": apart / len(lessons)}


def _lengths(answers: Iterable[Tokens]) -> list[int]:
    return [len(answer) for answer in answers]


def _device(model: nn.Module) -> torch.device:
    return next(unwrap(model).parameters()).device
