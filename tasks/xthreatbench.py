"""XThreatBench: harmful prompts built from platform policies, 3,150 in ten languages by a later survey.

Source: Banerjee et al., "Soteria: Language-Specific Functional Parameter Steering for Multilingual Safety Alignment",
EMNLP 2025, arXiv:2502.11244, hub SoftMINER-Group/Soteria (licence unknown).
Shape of a row: not known to us, the data card could not be read: name the columns, for example
with: {revision: <commit>, columns: {text: prompt, language: lang, id: id}}. The languages are those of the authors'
scripts; where your copy has fewer, the task says so: use task `custom` for it.
"""

from __future__ import annotations

from typing import ClassVar

from pydantic import ConfigDict
from pydantic.dataclasses import dataclass

from mlbench.core import Kind, Language
from mlbench.data import Hub

from ._hub_columns import NamedColumns


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class XThreatBench(NamedColumns):
    """Harmful prompts; `columns` names what holds them."""

    source: ClassVar[str] = "XThreatBench, arXiv:2502.11244"
    licence: ClassVar[str] = "unknown"
    kind: ClassVar[Kind] = "safety"
    name: ClassVar[str] = "xthreatbench"
    hub: ClassVar[Hub | None] = Hub(id="SoftMINER-Group/Soteria")
    example: ClassVar[str] = "path/to/xthreatbench.csv"
    codes: ClassVar[tuple[Language, ...]] = ("en", "zh", "de", "fr", "es", "th", "bg", "ar", "hi", "bn", "ta", "te")
    citation: ClassVar[str] = """@inproceedings{banerjee2025soteria,
  title = {Soteria: Language-Specific Functional Parameter Steering for Multilingual Safety Alignment},
  author = {Banerjee, Somnath and others},
  booktitle = {Conference on Empirical Methods in Natural Language Processing},
  year = {2025},
  note = {arXiv:2502.11244},
}"""


plugin = XThreatBench
