"""Plans of what is not on this machine: placeholders for data and models, what has to be fetched, what it would cost.

Only `mlbench plan` sketches; a run asks for the real things and refuses to start without them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from mlbench.core import Corpus, Example, Language, Model, Prompt
from mlbench.errors import UserError
from mlbench.plan import Plan
from mlbench.shootout import ModelEntry


class Facts(NamedTuple):
    """What a model's card says.

    Attributes:
        parameters: In billions.
        gated: Whether its licence has to be accepted, and a token given, before it can be fetched.
    """

    parameters: float
    gated: bool


MODELS = {
    "meta-llama/Llama-2-7b-chat-hf": Facts(6.74, True),
    "meta-llama/Meta-Llama-3-8B-Instruct": Facts(8.03, True),
    "meta-llama/Llama-3.1-8B-Instruct": Facts(8.03, True),
    "meta-llama/Llama-3.2-1B-Instruct": Facts(1.24, True),
    "meta-llama/Llama-3.2-3B-Instruct": Facts(3.21, True),
    "google/gemma-2-9b-it": Facts(9.24, True),
    "Qwen/Qwen2-0.5B-Instruct": Facts(0.49, False),
    "Qwen/Qwen2-1.5B-Instruct": Facts(1.54, False),
    "Qwen/Qwen2.5-1.5B-Instruct": Facts(1.54, False),
    "Qwen/Qwen2.5-3B-Instruct": Facts(3.09, False),
    "Qwen/Qwen2.5-7B-Instruct": Facts(7.62, False),
    "Qwen/Qwen3-8B": Facts(8.19, False),
}
"""Sizes of the models that the methods' papers use, from their cards."""

UNKNOWN_PROMPTS = 100
TOKENS_PER_ROW = 200
"""Assumed for prompts with their answers."""
TRAINING_FLOPS = 4e14
"""Operations per second in training: 40 % of what a GPU of the H100 class can do in bfloat16."""
GENERATION_FLOPS = 5e13
"""The same in generation, which waits for memory most of the time."""


@dataclass(frozen=True)
class Sketch:
    """Collects what is missing while a plan is made."""

    missing: list[str] = field(default_factory=list)

    def note(self, what: str) -> None:
        """Remember something missing, once."""
        if what not in self.missing:
            self.missing.append(what)

    def model(self, entry: ModelEntry) -> Model:
        """Return a model that stands for one on the hub."""
        facts = MODELS.get(entry.source)
        size = f", about {2 * facts.parameters:.0f} GB" if facts else ""
        gate = ", gated: accept its licence and set HF_TOKEN" if facts and facts.gated else ""
        pin = "" if entry.revision else "; name its commit as `revision`"
        self.note(f"model {entry.source} (hub{size}{gate}){pin}")
        return Model(
            name=entry.name or entry.source.split("/")[-1],
            source=entry.source,
            revision=entry.revision or f"not pinned: {entry.source}",
            dtype=entry.dtype,
        )

    def prompts(self, task: Any, label: str, language: Language, reason: UserError) -> tuple[Prompt, ...]:
        """Return as many empty prompts as the data set is known to have."""
        known = [*sorted(getattr(task, "known", {}).values()), *filter(None, [getattr(task, "size", 0)])]
        count = known[0] if known else UNKNOWN_PROMPTS
        size = f"{count} prompts per language" if known else f"size unknown, planned with {count} prompts per language"
        self.note(f"data of {label}: {reason.message} ({size})")
        return tuple(
            Prompt(id=f"{label}-{number}", cluster=f"{label}-{number}", language=language, text=f"{label} {number}")
            for number in range(count)
        )

    def corpus(self, data: str, pivot: Language, languages: Sequence[Language]) -> Corpus:
        """Return a corpus that has whatever a method may need."""
        self.note(f"corpus {data}: not on this machine, so no method's needs were checked")
        rows = tuple(
            Example(id=f"{harmful}-{number}", cluster=f"{harmful}-{number}", language=language, prompt="?",
                    harmful=harmful, chosen="?", rejected="?")
            for harmful in (True, False) for number in range(3) for language in languages
        )  # fmt: skip
        return Corpus(pivot=pivot, languages=tuple(languages), examples=rows)


def gpu_hours(made: Plan) -> float | None:
    """Return a rough number of GPU-hours, None where a model's size is not known.

    Training: 6 operations per parameter and token, twice for pairs of answers. Generation: 2 per parameter and token.
    """
    sizes = {model.name: MODELS[model.source].parameters * 1e9 for model in made.models if model.source in MODELS}
    if len(sizes) < len(made.models):
        return None
    seconds = 0.0
    for job in made.jobs.values():
        if job.kind == "align" and job.spec["effect"] == "training":
            budget = job.spec["training"]
            tokens = 2 * budget["steps"] * budget["batch_size"] * TOKENS_PER_ROW
            seconds += 6 * sizes[job.spec["model_name"]] * tokens / TRAINING_FLOPS
    answers = {cell.answer_key: cell for cell in made.cells}
    for key, cell in answers.items():
        spec = made.jobs[key].spec
        samples = spec["sampling"]["n"] if spec["sampling"] else 1
        tokens = cell.prompts * samples * spec["max_new_tokens"]
        seconds += 2 * sizes[cell.model] * tokens / GENERATION_FLOPS
    return seconds / 3600
