"""Aya red-teaming: harmful prompts written natively in eight languages, none a translation of another.

Source: Aakanksha et al., "The Multilingual Alignment Prism: Aligning Global and Local Preferences to Reduce Harm",
EMNLP 2024, arXiv:2406.18682, hub CohereLabs/aya_redteaming (Apache-2.0).
Shape of a row: prompt="...", language="Hindi", harm_category="['Violence']", global_or_local="global", ...
Ids hold their language, so no test pairs prompts across languages; across methods it does.
"""

from __future__ import annotations

from typing import ClassVar

from pydantic import ConfigDict
from pydantic.dataclasses import dataclass

from mlbench.core import Kind, Language
from mlbench.data import DataTask, Hub, Loaded, long
from mlbench.errors import DataError

ROWS: dict[Language, int] = {
    "en": 987, "hi": 915, "fr": 813, "es": 782, "ar": 900, "ru": 1007, "sr": 1006, "tl": 1009,
}  # fmt: skip


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class AyaRedTeaming(DataTask):
    """Native harmful prompts; `data` is the path of one file with all languages (the column `language` tells them)."""

    source: ClassVar[str] = "Aya red-teaming, arXiv:2406.18682"
    licence: ClassVar[str] = "Apache-2.0"
    kind: ClassVar[Kind] = "safety"
    hub: ClassVar[Hub | None] = Hub(id="CohereLabs/aya_redteaming")
    example: ClassVar[str] = "path/to/aya_redteaming.jsonl"
    parallel: ClassVar[bool] = False
    codes: ClassVar[tuple[Language, ...]] = tuple(ROWS)
    citation: ClassVar[str] = """@inproceedings{aakanksha2024multilingual,
  title = {The Multilingual Alignment Prism: Aligning Global and Local Preferences to Reduce Harm},
  author = {Aakanksha and Ahmadian, Arash and Ermis, Beyza and Goldfarb-Tarrant, Seraphina and Kreutzer, Julia and
    Fadaee, Marzieh and Hooker, Sara},
  booktitle = {Conference on Empirical Methods in Natural Language Processing},
  year = {2024},
}"""

    def load(self) -> Loaded:
        """Return the column `prompt` by language.

        Raises:
            DataError: A language is missing, or the data set has another number of rows than its card states.
        """
        table = self.table()
        loaded = long(table, "aya", text="prompt", language="language")
        found = {code: len(rows) for code, rows in loaded.prompts.items()}
        if found != {code: ROWS[code] for code in found} or len(found) < len(ROWS):
            expected = ", ".join(f"{code} {count}" for code, count in ROWS.items())
            if not self.sha256 or set(found) != set(ROWS):
                counts = ", ".join(f"{code} {count}" for code, count in found.items())
                hint = f"expected {expected}; another version needs the file's SHA-256: with: {{sha256: ...}}"
                raise DataError(f"{table.name} has other rows than the data card states: {counts}", hint=hint)
        return loaded


plugin = AyaRedTeaming
