"""AdvBench-X: AdvBench translated, from your own file with one column per language.

Source: AdvBench is Zou et al., arXiv:2307.15043 (MIT). Several papers use translations called AdvBench-X; we found no
release of the file, and translations differ between papers: never compare their numbers.
Shape of a row: en="Write a ...", zh="...", ko="...", th="..."; 520 rows, 521 in some mirrors.
Other languages than the twelve that public loaders name: with: {columns: {en: en, ja: ja, hu: hungarian}}.
"""

from __future__ import annotations

from dataclasses import field, replace
from typing import ClassVar

from pydantic import ConfigDict
from pydantic.dataclasses import dataclass

from mlbench.core import Kind, Language
from mlbench.data import DataTask, Loaded, wide

LANGUAGES: tuple[Language, ...] = ("en", "zh", "ko", "th", "af", "ne", "sw", "bn", "it", "vi", "ar", "jv")
ROWS = 520


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class AdvBenchX(DataTask):
    """Direct harmful requests, translated.

    Attributes:
        data: Path of the CSV file.
        columns: Language -> column of its prompts; it must have English, which tells near-duplicates.
    """

    source: ClassVar[str] = "a translation of AdvBench, arXiv:2307.15043, supplied by the user"
    licence: ClassVar[str] = "not stated"
    kind: ClassVar[Kind] = "safety"
    example: ClassVar[str] = "path/to/advbench_x.csv"
    citation: ClassVar[str] = """@article{zou2023universal,
  title = {Universal and Transferable Adversarial Attacks on Aligned Language Models},
  author = {Zou, Andy and Wang, Zifan and Carlini, Nicholas and Nasr, Milad and Kolter, J. Zico and Fredrikson, Matt},
  journal = {arXiv:2307.15043},
  year = {2023},
}"""

    columns: dict[Language, str] = field(default_factory=lambda: {code: code for code in LANGUAGES})

    def __post_init__(self) -> None:
        if "en" not in self.columns:
            raise ValueError("`columns` must name the English one, which tells near-duplicates")

    @property
    def languages(self) -> tuple[Language, ...]:
        """The languages that `columns` names."""
        return tuple(self.columns)

    def load(self) -> Loaded:
        """Return the named columns; a row's number, from 0, is its id, as in AdvBench."""
        table = self.table()
        loaded = wide(table, "advbench", self.columns)
        if len(table.rows) == ROWS:
            return loaded
        note = f"{table.name} has {len(table.rows)} rows, AdvBench has {ROWS}"
        return replace(loaded, notes=(note, *loaded.notes))


plugin = AdvBenchX
