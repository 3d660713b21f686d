"""The settings of a training corpus, and what reading one gives."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Annotated, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, model_validator

from mlbench.core import Corpus, Example, Language
from mlbench.corpus import language_names
from mlbench.similarity import normalise

Format = Literal["jsonl", "mpo", "mlc", "pku", "custom"]
CUSTOM = {"columns", "text", "language", "id", "cluster", "harmful", "chosen", "rejected"}


class CorpusEntry(BaseModel):
    """A training corpus of a shootout.

    Attributes:
        data: Path of the file.
        sha256: The version it has to be, where stated.
        defects: For mpo: "drop" leaves out prompts that are untranslated or of no certain language, and answers in
            another language than their prompt; "keep" leaves them in as released.
        contrast: For pku: only pairs of a safe and an unsafe answer.
        columns: For custom: language -> column of its prompts, for one column per language.
        text: For custom: column of the prompts, for one row per prompt and language.
        language: For custom: column of the languages, for one row per prompt and language.
        id: For custom: column of ids that translations share; "" = the row's number (one column per language).
        cluster: For custom: column of clusters.
        harmful: For custom: column that says whether a prompt is harmful; "" = all are.
        chosen: For custom: column of the preferred answers, which are in the pivot language, or in the row's own.
        rejected: For custom: column of the rejected answers.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: Format = "jsonl"
    data: Annotated[str, Field(min_length=1)]
    sha256: Annotated[str, Field(pattern=r"^([0-9a-fA-F]{64})?$")] = ""
    defects: Literal["drop", "keep"] = "drop"
    contrast: bool = True
    columns: dict[Language, str] = {}
    text: str = ""
    language: str = ""
    id: str = ""
    cluster: str = ""
    harmful: str = ""
    chosen: str = ""
    rejected: str = ""

    @model_validator(mode="after")
    def _fits(self) -> CorpusEntry:
        given = self.model_fields_set - {"format", "data", "sha256"}
        own = {"mpo": {"defects"}, "pku": {"contrast"}, "custom": CUSTOM}.get(self.format, set())
        if strange := sorted(given - own):
            raise ValueError(f"{strange[0]!r} is no key of the format {self.format!r}")
        if self.format == "custom" and bool(self.columns) == bool(self.text and self.language and self.id):
            raise ValueError("the format 'custom' needs either `columns`, or `text`, `language` and `id`")
        return self


class Read(NamedTuple):
    """A corpus, and sentences on what was found in its file."""

    corpus: Corpus
    notes: tuple[str, ...]


def made(rows: Iterable[Example], pivot: Language, notes: Iterable[str]) -> Read:
    """Return rows as a corpus, the pivot first among its languages."""
    examples = tuple(rows)
    codes = tuple(dict.fromkeys([pivot, *(row.language for row in examples)]))
    if not any(row.language == pivot for row in examples):
        notes = (*notes, f"the corpus has no prompt in the pivot language {pivot}")
    names = language_names(codes, pivot)
    return Read(Corpus(pivot=pivot, languages=codes, examples=examples, names=names), tuple(notes))


def clusters(prompts: Mapping[str, str]) -> dict[str, str]:
    """Return id -> cluster: ids whose prompts differ in case and punctuation at most are one cluster."""
    first: dict[str, str] = {}
    return {id: first.setdefault(normalise(text), id) for id, text in prompts.items()}
