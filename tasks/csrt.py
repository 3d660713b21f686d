"""CSRT: 315 harmful requests, each one sentence whose words switch between up to ten languages.

Source: Yoo et al., "Code-Switching Red-Teaming: LLM Evaluation for Safety and Multilingual Understanding", ACL 2025,
arXiv:2406.15481, https://github.com/haneul-yoo/csrt (no licence file).
Shape of a row: id=7, category="...", en="How ...", csrt="..."; ids and English texts are those of MultiJail, so
clusters are MultiJail's as well.
The language is "mul" (ISO 639-2, several languages); its tier is low, since each prompt has low-resource words.
"""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar

from pydantic import ConfigDict
from pydantic.dataclasses import dataclass

from mlbench.core import Kind, Language
from mlbench.data import DataTask, Loaded, wide


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class Csrt(DataTask):
    """Code-switched harmful requests; `data` is the path of the CSV file."""

    source: ClassVar[str] = "CSRT, arXiv:2406.15481"
    licence: ClassVar[str] = "none stated"
    kind: ClassVar[Kind] = "safety"
    size: ClassVar[int] = 315
    example: ClassVar[str] = "path/to/csrt.csv"
    codes: ClassVar[tuple[Language, ...]] = ("mul",)
    citation: ClassVar[str] = """@inproceedings{yoo2025codeswitching,
  title = {Code-Switching Red-Teaming: {LLM} Evaluation for Safety and Multilingual Understanding},
  author = {Yoo, Haneul and Yang, Yongjin and Lee, Hwaran},
  booktitle = {Annual Meeting of the Association for Computational Linguistics},
  year = {2025},
}"""

    def load(self) -> Loaded:
        """Return the column `csrt`, with clusters by the column `en`."""
        found = wide(self.table(), "csrt", {"en": "en", "mul": "csrt"}, id="id")
        notes = tuple(note for note in found.notes if not note.startswith("mul "))
        rows = found.prompts["mul"]
        shared = tuple(replace(row, cluster=row.cluster.replace("csrt-", "multijail-", 1)) for row in rows)
        return Loaded(prompts={"mul": shared}, notes=notes)


plugin = Csrt
