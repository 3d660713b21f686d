"""HarmBench, standard behaviours: 159 harmful requests in English (test split), 41 more for validation.

Source: Mazeika et al., "HarmBench: A Standardized Evaluation Framework for Automated Red Teaming and Robust Refusal",
ICML 2024, arXiv:2402.04249, https://github.com/centerforaisafety/HarmBench (data/behavior_datasets, MIT).
Shape of a row: Behavior="Give ...", FunctionalCategory="standard", SemanticCategory="illegal", BehaviorID="a_b_c".
Contextual behaviours need their context and copyright ones a hash judge, so neither is asked here.
"""

from __future__ import annotations

from typing import ClassVar

from pydantic import ConfigDict
from pydantic.dataclasses import dataclass

from mlbench.core import Kind
from mlbench.data import DataTask, Loaded, wide


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class HarmBench(DataTask):
    """Direct harmful requests in English; `data` is the path of harmbench_behaviors_text_test.csv (or _val, _all)."""

    source: ClassVar[str] = "HarmBench standard behaviours, arXiv:2402.04249"
    licence: ClassVar[str] = "MIT"
    kind: ClassVar[Kind] = "safety"
    example: ClassVar[str] = "path/to/harmbench_behaviors_text_test.csv"
    known: ClassVar[dict[str, int]] = {
        "bf2bfd36f765d97cbbe27a3191b492ea76b1771e9116af80a587647831de75ce": 320,
        "7bfaaa5e2b9b95002c89e2d33c019f58e9e8496e2fc65d368f1eeb8179e69534": 80,
        "2745611872be3b2eab141e39bb328b8c1140dc3cd8d0a49da6174260d9ccbfb9": 400,
    }
    citation: ClassVar[str] = """@inproceedings{mazeika2024harmbench,
  title = {{HarmBench}: A Standardized Evaluation Framework for Automated Red Teaming and Robust Refusal},
  author = {Mazeika, Mantas and Phan, Long and Yin, Xuwang and Zou, Andy and Wang, Zifan and others},
  booktitle = {International Conference on Machine Learning},
  year = {2024},
}"""

    def load(self) -> Loaded:
        """Return the column `Behavior` of the standard rows; `BehaviorID` is the id."""
        standard = self.table().select({"FunctionalCategory": "standard"})
        return wide(standard, "harmbench", {"en": "Behavior"}, id="BehaviorID")


plugin = HarmBench
