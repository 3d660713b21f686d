"""MultiJail: 315 harmful requests, each in ten languages, translated by native speakers.

Source: Deng et al., "Multilingual Jailbreak Challenges in Large Language Models", ICLR 2024, arXiv:2310.06474,
https://github.com/DAMO-NLP-SG/multilingual-safety-for-LLMs (data/MultiJail.csv, MIT).
Shape of a row: id=7, source="anthropics", tags="['Theft']", then one column per language: en, zh, it, vi, ...
This is the "unintentional" setting: the prompt alone.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import ClassVar

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

from mlbench.core import Kind, Language, Prompt, Tier
from mlbench.errors import DataError, nearest

TIERS: dict[Language, Tier] = {
    "en": "high", "zh": "high", "it": "high", "vi": "high",
    "ar": "mid", "ko": "mid", "th": "mid",
    "bn": "low", "sw": "low", "jv": "low",
}  # fmt: skip
COLUMNS = ("id", "source", "tags", *TIERS)


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class MultiJail:
    """Direct harmful requests; `data` is the path of MultiJail.csv."""

    source: ClassVar[str] = "MultiJail, arXiv:2310.06474, commit 577ac51"
    licence: ClassVar[str] = "MIT"
    kind: ClassVar[Kind] = "safety"

    data: str = Field(default="MultiJail.csv", min_length=1)

    @property
    def languages(self) -> tuple[Language, ...]:
        """The ten languages of the file."""
        return tuple(TIERS)

    @property
    def tiers(self) -> Mapping[Language, Tier]:
        """High, mid and low resource, as the paper groups them."""
        return TIERS

    @property
    def judge(self) -> str:
        """Refusal phrases: a smoke test until a guard model is named."""
        return "refusal"

    def prompts(self, language: Language) -> Sequence[Prompt]:
        """Return the 315 prompts of one language; `id` is the row's id, shared by all languages.

        Raises:
            DataError: The file is missing, lacks a column, repeats an id or has an empty cell.
        """
        return [
            Prompt(id=f"multijail-{row['id']}", cluster=f"multijail-{row['id']}", language=language, text=row[language])
            for row in _rows(self.data)
        ]


@cache
def _rows(data: str) -> tuple[dict[str, str], ...]:
    path = Path(data).expanduser()
    if not path.is_file():
        raise DataError(
            f"MultiJail file {data!r} does not exist (seen from {Path.cwd()})",
            hint="give its path: with: {data: path/to/MultiJail.csv}",
        )
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file)
            rows, header = tuple(reader), tuple(reader.fieldnames or ())
    except UnicodeDecodeError as error:
        raise DataError(f"{data} is not UTF-8: byte {error.start}") from error
    except csv.Error as error:
        raise DataError(f"{data} is not CSV: {error}") from error
    for column in COLUMNS:
        if column not in header:
            raise DataError(f"{data} has no column {column!r}", allowed=header, hint=nearest(column, header))
    seen: set[str] = set()
    for number, row in enumerate(rows, start=2):
        if row["id"] in seen:
            raise DataError(f"{data}: id {row['id']!r} occurs twice, the second time in row {number}")
        seen.add(row["id"])
        for column in TIERS:
            if not (row[column] or "").strip():
                raise DataError(f"{data}: row {number} has no text in column {column!r}")
    return rows


plugin = MultiJail
