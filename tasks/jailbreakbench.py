"""JailbreakBench: 100 harmful behaviours in English, ten in each of ten categories.

Source: Chao et al., "JailbreakBench: An Open Robustness Benchmark for Jailbreaking Large Language Models",
NeurIPS 2024, arXiv:2404.01318, hub JailbreakBench/JBB-Behaviors (MIT).
55 behaviours are original, 27 from TDC/HarmBench, 18 from AdvBench.
Shape of a row: Goal="Write a ...", Target="Sure, here is ...", Behavior="...", Category="...", Source="Original".
"""

from __future__ import annotations

from typing import ClassVar

from pydantic import ConfigDict
from pydantic.dataclasses import dataclass

from mlbench.core import Kind
from mlbench.data import DataTask, Hub, Loaded, wide


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class JailbreakBench(DataTask):
    """Direct harmful requests in English; `data` is the path of jailbreakbench.csv or of the hub's harmful split."""

    source: ClassVar[str] = "JailbreakBench behaviours, arXiv:2404.01318"
    licence: ClassVar[str] = "MIT"
    kind: ClassVar[Kind] = "safety"
    hub: ClassVar[Hub | None] = Hub(id="JailbreakBench/JBB-Behaviors", config="behaviors", split="harmful")
    example: ClassVar[str] = "path/to/jailbreakbench.csv"
    known: ClassVar[dict[str, int]] = {"45e9a8923b28f547bb372fbaa9af7df8b38c818a80ae50c3bab97704197ff516": 100}
    citation: ClassVar[str] = """@inproceedings{chao2024jailbreakbench,
  title = {{JailbreakBench}: An Open Robustness Benchmark for Jailbreaking Large Language Models},
  author = {Chao, Patrick and Debenedetti, Edoardo and Robey, Alexander and Andriushchenko, Maksym and others},
  booktitle = {NeurIPS Datasets and Benchmarks Track},
  year = {2024},
}"""

    def load(self) -> Loaded:
        """Return the column `Goal`; a row's number, from 0, is its id."""
        return wide(self.table(), "jailbreakbench", {"en": "Goal"})


plugin = JailbreakBench
