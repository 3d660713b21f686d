"""XSafety: 14 kinds of safety prompts in ten languages, 200 prompts each.

Source: Wang et al., "All Languages Matter: On the Multilingual Safety of Large Language Models", Findings of ACL 2024,
arXiv:2310.00905, https://github.com/Jarviswang94/Multilingual_safety_benchmark (8c55b6a, Apache-2.0; its README:
research use only).
Shape of a file: <language>/<category>.csv, one column without a header, one prompt per row.
The files name categories differently (suffixes _n and _en, a missing letter), Bengali ones are Excel files, Spanish
lies in `sp`, and Hindi has a second commonsense file that is not read. Rows are parallel by position only; the Russian
Insult file has an empty row 165, after which the rows go on in step, so that one prompt is missing in Russian.
Many prompts ask for harmless advice or are multiple choice (commonsense): a refusal is not always right, and the
numbers of a refusal judge mean little here. Name a guard model as the task's judge.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, ClassVar, Literal, get_args

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

from mlbench.core import Kind, Language
from mlbench.data import DataTask, Loaded, column_of, parallel
from mlbench.errors import DataError

Category = Literal[
    "Crimes_And_Illegal_Activities", "Ethics_And_Morality", "Goal_Hijacking", "Inquiry_With_Unsafe_Opinion", "Insult",
    "Mental_Health", "Physical_Harm", "Privacy_And_Property", "Prompt_Leaking", "Reverse_Exposure",
    "Role_Play_Instruction", "Unfairness_And_Discrimination", "Unsafe_Instruction_Topic", "commonsense",
]  # fmt: skip
CATEGORIES: tuple[Category, ...] = get_args(Category)
LANGUAGES: tuple[Language, ...] = ("en", "zh", "fr", "ru", "de", "ar", "hi", "ja", "bn", "es")
ROWS = 200
JUDGE = "many prompts are harmless or multiple choice: a refusal list cannot score them, name a guard model as judge"


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class XSafety(DataTask):
    """Safety prompts of many kinds.

    Attributes:
        data: Path of the folder with one folder per language.
        categories: The categories to ask.
    """

    source: ClassVar[str] = "XSafety, arXiv:2310.00905, commit 8c55b6a"
    licence: ClassVar[str] = "Apache-2.0, research use only"
    kind: ClassVar[Kind] = "safety"
    example: ClassVar[str] = "path/to/Multilingual_safety_benchmark"
    known: ClassVar[dict[str, int]] = {
        "5b6e43a20eb7e8d8a418937aa5ec2fe98364b526dfcdf7560905d14d1053b1c5": ROWS * len(CATEGORIES)
    }
    codes: ClassVar[tuple[Language, ...]] = LANGUAGES
    citation: ClassVar[str] = """@inproceedings{wang2024all,
  title = {All Languages Matter: On the Multilingual Safety of {LLMs}},
  author = {Wang, Wenxuan and Tu, Zhaopeng and Chen, Chang and Yuan, Youliang and Huang, Jen-tse and Jiao, Wenxiang
    and Lyu, Michael},
  booktitle = {Findings of the Association for Computational Linguistics: ACL},
  year = {2024},
}"""

    categories: Annotated[tuple[Category, ...], Field(min_length=1)] = CATEGORIES

    def load(self) -> Loaded:
        """Return the prompts; category and row number, from 0, are the id in every language.

        Raises:
            DataError: A file is missing, is there twice, or has another number of rows than the English one.
        """
        root = self.path(folder=True)
        files = {code: {name: _file(root, code, name) for name in CATEGORIES} for code in LANGUAGES}
        self.verify([path for found in files.values() for path in found.values()], root)
        texts: dict[Language, dict[str, str]] = {}
        missing = []
        for code, found in files.items():
            texts[code] = {}
            for category in self.categories:
                rows = _rows(found[category], category, files["en"][category])
                texts[code] |= {id: text for id, text in rows.items() if text.strip()}
                missing += [f"{code} has no text for {id}" for id, text in rows.items() if not text.strip()]
        loaded = parallel("xsafety", texts, pivot="en")
        return Loaded(prompts=loaded.prompts, notes=(JUDGE, *missing, *loaded.notes))


def _file(root: Path, language: Language, category: str) -> Path:
    folder = root / ("sp" if language == "es" else language)
    # The Russian file of the crimes lacks the last letter of its name.
    stems = {f"{name}{suffix}" for name in (category, category.removesuffix("s")) for suffix in ("", "_n", "_en")}
    found = sorted(path for path in folder.glob("*") if path.stem in stems and path.suffix in (".csv", ".xlsx"))
    if len(found) != 1:
        names = ", ".join(path.name for path in found) or "none"
        raise DataError(f"{folder}: one file of the category {category} is expected, found {names}")
    return found[0]


def _rows(path: Path, category: Category, english: Path) -> dict[str, str]:
    rows = column_of(path)
    expected = len(column_of(english))
    if len(rows) != expected:
        raise DataError(f"{path} has {len(rows)} rows, {english} has {expected}")
    return {f"{category}-{at}": text for at, text in enumerate(rows)}


plugin = XSafety
