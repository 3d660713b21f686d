"""Multilingual tasks of lm-evaluation-harness that mlbench knows: languages, ids, and the score that is read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from mlbench.core import Language
from mlbench.languages import FLORES


@dataclass(frozen=True, kw_only=True)
class Family:
    """One task in many languages.

    Attributes:
        codes: Language -> what the harness calls it.
        id: Columns that make a document's id; none = its number.
        cluster: Columns that make its cluster; none = its id.
        metric: The score that says right or wrong: metric, or metric,filter.
        parallel: Whether documents of one id are translations of each other; None = unknown.
        licence: Licence of the data.
    """

    codes: Mapping[Language, str] = field(default_factory=dict)
    id: tuple[str, ...] = ()
    cluster: tuple[str, ...] = ()
    metric: str = ""
    parallel: bool | None = None
    licence: str = ""


def _same(codes: str) -> dict[Language, str]:
    return {code: code for code in codes.split()}


_MGSM = Family(
    codes=_same("bn de en es fr ja ru sw te th zh"),
    metric="exact_match,flexible-extract",
    parallel=True,
    licence="CC BY 4.0",
)
_GLOBAL_MMLU = Family(
    codes=_same("ar bn de en es fr hi id it ja ko pt sw yo zh"),
    id=("sample_id",),
    metric="acc",
    parallel=True,
    licence="Apache-2.0",
)

FAMILIES: Mapping[str, Family] = {
    "belebele_{language}": Family(
        # It has no Kurmanji; its dialects and Latin spellings are named in `codes`.
        codes={code: name for code, name in FLORES.items() if code != "kmr"},
        id=("link", "question_number"),
        cluster=("link",),  # a passage has one or two questions
        metric="acc",
        parallel=True,
        licence="CC BY-SA 4.0",
    ),
    "global_mmlu_{language}": _GLOBAL_MMLU,
    "global_mmlu_full_{language}": Family(
        codes=_same(
            "am ar bn cs de el en es fa fr ha he hi id ig it ja ko ky lt mg ms ne nl ny pl pt ro ru si sn so sr sv sw "
            "te tr uk vi yo zh"
        )
        | {"tl": "fil"},
        id=_GLOBAL_MMLU.id,
        metric="acc",
        parallel=True,
        licence="Apache-2.0",
    ),
    "mgsm_direct_{language}": _MGSM,
    "mgsm_en_cot_{language}": _MGSM,
    "mgsm_native_cot_{language}": _MGSM,
    "xcopa_{language}": Family(
        codes=_same("et ht id it qu sw ta th tr vi zh"), id=("idx",), metric="acc", parallel=True, licence="CC BY 4.0"
    ),
}
