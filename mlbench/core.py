"""Nouns and roles of mlbench: the data that flows between stages, and the three things a plugin can be.

Nouns are frozen, keyword-only dataclasses of plain data. Roles are Protocols: a plugin needs no base class.
Standard library only, but for `annotated_types`, the vocabulary in which ranges are stated.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Protocol, runtime_checkable

from annotated_types import Ge, Gt, Interval

Language = str
"""A BCP-47 code, or a name the organism's world defines ("en", "h1", ... "u1")."""

Need = Literal["pivot_preferences", "parallel_prompts", "target_preferences", "benign_prompts"]
"""What a method may ask the corpus for.

pivot_preferences   chosen and rejected answers in the pivot language
parallel_prompts    the pivot's prompts in the other training languages, without answers
target_preferences  chosen and rejected answers in the other training languages
benign_prompts      benign rows as well, with whatever the needs above allow to see of them
"""

Kind = Literal["safety", "over_refusal", "utility"]
Label = Literal["refused", "complied_safe", "unsafe", "invalid", "unparsed"]
Tier = Literal["high", "mid", "low"]

Effect = Literal["training", "edit", "prompt", "nothing"]
"""What a method does to a model, and so what its result depends on.

training    gradient steps: the training budget and the seed
edit        weights computed in closed form: the seed, not the budget
prompt      a system prompt: neither, and no weight changes
nothing     the start model: neither
"""

Fidelity = Literal["released code", "paper", "reconstruction", "baseline"]
"""What an implementation follows.

released code    the authors' code, deviations named
paper            the paper's formulas; no code was released
reconstruction   second-hand descriptions; marked wherever a result is shown
baseline         a standard method of the field
"""


@dataclass(frozen=True, kw_only=True)
class Model:
    """A base model of a shootout.

    Attributes:
        name: How the shootout and the report call it.
        source: `organism:<size>[@seed]`, a local Hugging Face folder, or a hub id.
        revision: Commit of a hub id, content hash of everything else; part of every job key.
        dtype: Parameter type while it runs, "float32" or "bfloat16".
    """

    name: str
    source: str
    revision: str
    dtype: str = "float32"


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """Weights a job can load: a base, adapters applied in order, and optional system prompts.

    Attributes:
        base: Folder (or hub id) of a Hugging Face model with tokenizer and chat template.
        revision: Commit of a hub id, else "".
        adapters: PEFT folders, merged into the base one after the other.
        system_prompts: System prompt by language; the key "*" holds for every language not named.
    """

    base: str
    revision: str = ""
    dtype: str = "float32"
    adapters: tuple[str, ...] = ()
    system_prompts: Mapping[Language, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Prompt:
    """One evaluation prompt in one language.

    Attributes:
        id: Shared by all translations of one source prompt.
        cluster: The unit of every statistic; near-duplicate source prompts share it.
        text: The user turn.
        reference: What the task's judge needs to know; never shown to a model.
        choices: Options to compare by log-likelihood; empty means that the model writes an answer.
    """

    id: str
    cluster: str
    language: Language
    text: str
    reference: str = ""
    choices: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What a model answered to one prompt.

    Attributes:
        tokens: Generated tokens, end-of-turn excluded.
        truncated: Whether the token limit cut the answer off.
        choice: Index of the likeliest option where the prompt has choices.
        sample: Which of the answers to this prompt, from 0.
        score: 1 right, 0 wrong, where the task scores its answers itself.
    """

    prompt: Prompt
    text: str
    tokens: int = 0
    truncated: bool = False
    choice: int | None = None
    sample: int = 0
    score: float | None = None


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What a judge says of one answer.

    Attributes:
        label: `unparsed` means that the judge gave no readable verdict; it is counted, never averaged away.
        leak: A refusal opening followed by the harmful content (its label is `unsafe`).
        correct: Whether a utility answer is right; None where the question does not arise.
        language: Language of the answer where the judge can tell.
        raw: The judge's own words.
    """

    label: Label
    leak: bool = False
    correct: bool | None = None
    language: Language | None = None
    raw: str = ""


@dataclass(frozen=True, kw_only=True)
class Example:
    """One training prompt in one language, with its preferred and its rejected answer.

    An answer that a method may not see, or that the corpus does not have, is None.
    """

    id: str
    cluster: str
    language: Language
    prompt: str
    harmful: bool
    chosen: str | None = None
    rejected: str | None = None


@dataclass(frozen=True, kw_only=True)
class Corpus:
    """Training data: the same source prompts in several languages.

    Attributes:
        pivot: The language whose safety is to be carried over.
        languages: Training languages, the pivot first. Held-out languages never appear here.
        examples: All rows; rows of one `id` are translations of each other.
        names: What the pivot language calls each language, for instructions such as "answer in Bengali".
    """

    pivot: Language
    languages: tuple[Language, ...]
    examples: tuple[Example, ...]
    names: Mapping[Language, str] = field(default_factory=dict)

    def rows(self, language: Language) -> tuple[Example, ...]:
        """Return the rows of one language, in corpus order."""
        return tuple(row for row in self.examples if row.language == language)

    def parallel(self) -> tuple[Mapping[Language, Example], ...]:
        """Return one mapping language -> row per source prompt; a missing translation is a missing key."""
        groups: dict[str, dict[Language, Example]] = {}
        for row in self.examples:
            groups.setdefault(row.id, {})[row.language] = row
        return tuple(groups.values())


@dataclass(frozen=True, kw_only=True)
class Training:
    """The training budget of a gradient method, shared by all methods of a shootout unless one overrides it.

    Attributes:
        steps: Optimiser steps.
        batch_size: Examples per optimiser step, whatever the number of devices.
        micro_batch: Examples per forward pass, 0 = the whole batch; changes memory, not results beyond rounding.
        warmup: Share of the steps over which the learning rate rises.
        lora_rank: Rank of LoRA adapters on all linear layers; 0 = full fine-tuning.
        lora_alpha: LoRA scaling numerator; 0 = twice the rank.
        max_length: Longest row in tokens; a longer one is refused, never cut silently.
        save_every: Steps between saves from which a killed training goes on, 0 = none; changes no result.
    """

    steps: Annotated[int, Ge(1)] = 60
    batch_size: Annotated[int, Ge(1)] = 32
    micro_batch: Annotated[int, Ge(0)] = 0
    learning_rate: Annotated[float, Gt(0)] = 2e-4
    schedule: Literal["constant", "linear", "cosine"] = "linear"
    warmup: Annotated[float, Interval(ge=0, lt=1)] = 0.1
    weight_decay: Annotated[float, Ge(0)] = 0.0
    max_grad_norm: Annotated[float, Gt(0)] = 1.0
    lora_rank: Annotated[int, Ge(0)] = 0
    lora_alpha: Annotated[int, Ge(0)] = 0
    max_length: Annotated[int, Ge(8)] = 1024
    gradient_checkpointing: bool = False
    save_every: Annotated[int, Ge(0)] = 0


@dataclass(frozen=True, kw_only=True)
class Preset:
    """A named configuration of a method.

    Attributes:
        note: Where it was published, or why it is offered.
        fields: Values of the method's fields.
        training: Values of the training budget; those that a shootout's `training` names win over them.
    """

    note: str
    fields: Mapping[str, Any] = field(default_factory=dict)
    training: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Shape:
    """Sizes of a model, as its configuration states them.

    Attributes:
        hidden: Width of the hidden states.
        feed_forward: Width of the MLP.
    """

    layers: int
    hidden: int
    feed_forward: int


@runtime_checkable
class Run(Protocol):
    """What the engine lends to `Method.align`."""

    @property
    def seed(self) -> int:
        """Seed of every stochastic step."""

    @property
    def folder(self) -> Path:
        """Empty folder for the result."""

    @property
    def training(self) -> Training:
        """The training budget."""

    @property
    def scratch(self) -> Path:
        """Folder of this job alone that outlives a killed process: where a training saves what it resumes from."""

    @property
    def shared(self) -> Path:
        """Folder of all jobs of a run, for what several of them compute alike.

        A file is named by the hash of everything its content depends on, and written under another name first.
        """

    def log(self, step: int, total: int, **values: float) -> None:
        """Record the training curve and show progress."""

    def consume(self, rows: Iterable[Example], *, answers: bool) -> None:
        """Record which rows were read, and whether their answers were."""

    def record(self, **facts: float | str) -> None:
        """Record further facts of the training, e.g. trainable_parameters."""


@runtime_checkable
class Method(Protocol):
    """An alignment method: a frozen dataclass whose fields are its hyper-parameters.

    Class attributes it may have besides: `effect` (an `Effect`, default "training"), `fidelity` (a `Fidelity`,
    default "baseline"), `presets` (name -> `Preset`), `reported` (the paper's own numbers), `citation` (BibTeX).
    Methods it may have besides: `check(corpus, shape)`, which raises a `UserError` while a shootout is planned, the
    shape being None where the model's configuration is not at hand; and a property `builds_on`, the names of other
    methods whose code it runs. A gradient method whose `align` takes one more argument, `side`, can carry the loss
    of another one (see `mlbench.training.side`).
    """

    paper: ClassVar[str]

    @property
    def needs(self) -> frozenset[Need]:
        """What it reads of the corpus; nothing else is visible to it."""

    def align(self, start: Checkpoint, corpus: Corpus, run: Run) -> Checkpoint:
        """Return the aligned checkpoint, written below `run.folder`; `start` is never modified."""


@runtime_checkable
class Judge(Protocol):
    """Grades answers; the result has the length and the order of its input.

    It may have besides: `provenance() -> dict[str, str]`, model, revision, hash of the template, decoding, written
    beside every rate it gave; `costs() -> dict[str, float]`, what it has used, kept with the job; `check()`, which
    raises a `UserError` while a shootout is planned.
    """

    def grade(self, answers: Sequence[Answer]) -> Sequence[Verdict]:
        """Return one verdict per answer."""


@runtime_checkable
class Task(Protocol):
    """An evaluation set; its fields say where the data lie or which part is used.

    A task may also have `licence`, `citation` (BibTeX), `only_for` (the one model source that its prompts make sense
    to), `parallel` (False where equal ids of two languages are no translations), `notes` (sentences on its data) and
    `argument`: the name of the field that `plugin:argument` fills in a shootout.

    A task that asks the model itself has `answer(loaded, prompts, *, max_new_tokens, batch_size) -> list[Answer]`, the
    answers to prompts of one language by a model in memory (`models.Loaded`), and `fingerprint(language) -> str`, the
    hash of all they depend on besides prompts, model and engine.
    """

    source: ClassVar[str]
    kind: ClassVar[Kind]

    @property
    def languages(self) -> tuple[Language, ...]:
        """Languages it has prompts in."""

    @property
    def tiers(self) -> Mapping[Language, Tier]:
        """Resource tier of each language, as the data card declares it."""

    @property
    def judge(self) -> str:
        """Name of the default judge plugin; a shootout may override it."""

    def prompts(self, language: Language) -> Sequence[Prompt]:
        """Return the prompts of one language."""
