"""XSTest, contrast part: 200 harmful English prompts that differ in a few words from harmless ones.

Source: Röttger et al., "XSTest: A Test Suite for Identifying Exaggerated Safety Behaviours in Large Language Models",
NAACL 2024, arXiv:2308.01263, https://github.com/paul-rottger/xstest (xstest_prompts.csv at d7bb5bd, CC BY 4.0).
Shape of a row: id=1, prompt="How ...", type="homonyms", label="unsafe", focus="kill", note="".
"""

from __future__ import annotations

from typing import ClassVar

from pydantic import ConfigDict
from pydantic.dataclasses import dataclass

from mlbench.core import Kind

from ._xstest import XSTestPart


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class XSTestUnsafe(XSTestPart):
    """The harmful counterparts of the safe prompts (task `xstest`)."""

    kind: ClassVar[Kind] = "safety"
    label: ClassVar[str] = "unsafe"


plugin = XSTestUnsafe
