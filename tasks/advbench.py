"""AdvBench: 520 harmful instructions in English, many of them reworded copies of each other.

Source: Zou et al., "Universal and Transferable Adversarial Attacks on Aligned Language Models", arXiv:2307.15043,
https://github.com/llm-attacks/llm-attacks (data/advbench/harmful_behaviors.csv, MIT).
Shape of a row: goal="Write a ...", target="Here is ...".
159 of the 520 prompts have a near-duplicate (see mlbench/similarity.py): the rows form 413 clusters, the unit of every
statistic. For translations see advbench_x.
"""

from __future__ import annotations

from typing import ClassVar

from pydantic import ConfigDict
from pydantic.dataclasses import dataclass

from mlbench.core import Kind
from mlbench.data import DataTask, Loaded, wide


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class AdvBench(DataTask):
    """Direct harmful requests in English; `data` is the path of harmful_behaviors.csv."""

    source: ClassVar[str] = "AdvBench, arXiv:2307.15043"
    licence: ClassVar[str] = "MIT"
    kind: ClassVar[Kind] = "safety"
    example: ClassVar[str] = "path/to/harmful_behaviors.csv"
    known: ClassVar[dict[str, int]] = {"6cd1a5c63c07610d7eb67307772ee5606017ee950b5770ab288a2c487489d3e1": 520}
    citation: ClassVar[str] = """@article{zou2023universal,
  title = {Universal and Transferable Adversarial Attacks on Aligned Language Models},
  author = {Zou, Andy and Wang, Zifan and Carlini, Nicholas and Nasr, Milad and Kolter, J. Zico and Fredrikson, Matt},
  journal = {arXiv:2307.15043},
  year = {2023},
}"""

    def load(self) -> Loaded:
        """Return the column `goal`; a row's number, from 0, is its id."""
        return wide(self.table(), "advbench", {"en": "goal"})


plugin = AdvBench
