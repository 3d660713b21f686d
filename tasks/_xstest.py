"""What the two parts of XSTest share: one file of English prompts labelled safe or unsafe."""

from __future__ import annotations

from typing import ClassVar

from pydantic import ConfigDict
from pydantic.dataclasses import dataclass

from mlbench.data import DataTask, Hub, Loaded, wide


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class XSTestPart(DataTask):
    """The prompts of one label; `data` is the path of xstest_prompts.csv."""

    source: ClassVar[str] = "XSTest, arXiv:2308.01263, commit d7bb5bd"
    licence: ClassVar[str] = "CC BY 4.0"
    hub: ClassVar[Hub | None] = Hub(id="Paul/XSTest")
    example: ClassVar[str] = "path/to/xstest_prompts.csv"
    known: ClassVar[dict[str, int]] = {"11783fb294ed017473ee53c207d71f2161c7672c8d0b037501e78387f801cb5a": 450}
    label: ClassVar[str]
    citation: ClassVar[str] = """@inproceedings{rottger2024xstest,
  title = {{XSTest}: A Test Suite for Identifying Exaggerated Safety Behaviours in Large Language Models},
  author = {R{\\"o}ttger, Paul and Kirk, Hannah and Vidgen, Bertie and Attanasio, Giuseppe and Bianchi, Federico and
    Hovy, Dirk},
  booktitle = {Conference of the North American Chapter of the Association for Computational Linguistics},
  year = {2024},
}"""

    def load(self) -> Loaded:
        """Return the column `prompt` of the label; the column `id` is the id."""
        return wide(self.table().select({"label": self.label}), "xstest", {"en": "prompt"}, id="id")
