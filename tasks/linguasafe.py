"""LinguaSafe: 45,000 safety prompts in twelve languages, translated, transcreated and native.

Source: Ning et al., "LinguaSafe: A Comprehensive Multilingual Safety Benchmark for Large Language Models",
arXiv:2508.12733, hub telegraphpolehead/linguasafe, https://github.com/zy-ning/LinguaSafe (code MIT; the data's
licence was not seen).
Shape of a row: not known to us, the data card could not be read: name the columns and the part, for example
with: {revision: <commit>, columns: {text: prompt, language: lang}, where: {type: direct}}.
Its oversensitivity part has harmless prompts: ask it with task `custom` and kind: over_refusal, never as this one.
"""

from __future__ import annotations

from typing import ClassVar

from pydantic import ConfigDict
from pydantic.dataclasses import dataclass

from mlbench.core import Kind, Language
from mlbench.data import Hub

from ._hub_columns import NamedColumns


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class LinguaSafe(NamedColumns):
    """Harmful prompts; `columns` and `where` say which."""

    source: ClassVar[str] = "LinguaSafe, arXiv:2508.12733"
    licence: ClassVar[str] = "not stated (code MIT)"
    kind: ClassVar[Kind] = "safety"
    name: ClassVar[str] = "linguasafe"
    hub: ClassVar[Hub | None] = Hub(id="telegraphpolehead/linguasafe")
    example: ClassVar[str] = "path/to/linguasafe.jsonl"
    codes: ClassVar[tuple[Language, ...]] = ("en", "zh", "ar", "ru", "sr", "th", "ko", "vi", "cs", "hu", "bn", "ms")
    citation: ClassVar[str] = """@article{linguasafe2025,
  title = {{LinguaSafe}: A Comprehensive Multilingual Safety Benchmark for Large Language Models},
  author = {Ning, Zhiyuan and Gu, Tianle and Song, Jiaxin and Hong, Shixin and Li, Lingyu and others},
  journal = {arXiv:2508.12733},
  year = {2025},
}"""


plugin = LinguaSafe
