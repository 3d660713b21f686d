"""The training corpus: what a method may see of it, what it lacks, and what must leave it before training.

A JSONL corpus has one object per line: `id`, `language`, `prompt`, `harmful` (true unless it says false) and, where
they exist, `chosen`, `rejected`, `cluster`. Rows with the same `id` are translations of each other.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from mlbench import overlap
from mlbench.core import Corpus, Example, Language, Need, Prompt
from mlbench.errors import ConfigError, DataError, NeedsError, Where, nearest

COLUMNS = ("id", "language", "prompt", "harmful", "chosen", "rejected", "cluster")
REQUIRED = ("id", "language", "prompt")
TYPES: dict[str, tuple[type, ...]] = {"id": (str, int), "cluster": (str, int), "harmful": (bool,)}
WORDS = {"id": "text or a whole number", "cluster": "text or a whole number", "harmful": "true or false"}


def empty(pivot: Language) -> Corpus:
    """Return the corpus of a shootout that trains nothing."""
    return Corpus(pivot=pivot, languages=(pivot,), examples=())


def view(corpus: Corpus, needs: Iterable[Need]) -> Corpus:
    """Return only what the needs name: a method cannot read what it did not declare."""
    needs = frozenset(needs)
    rows = tuple(row for row in (_visible(row, corpus.pivot, needs) for row in corpus.examples) if row is not None)
    # Whoever reads the pivot alone does not depend on which other languages there are.
    others = needs & {"parallel_prompts", "target_preferences"}
    languages = corpus.languages if others else (corpus.pivot,)
    names = {code: corpus.names[code] for code in languages if code in corpus.names} if others else {}
    return replace(corpus, examples=rows, languages=languages, names=names)


def _visible(row: Example, pivot: Language, needs: frozenset[Need]) -> Example | None:
    if not row.harmful and "benign_prompts" not in needs:
        return None
    answers: Need = "pivot_preferences" if row.language == pivot else "target_preferences"
    if answers in needs:
        return row
    if "parallel_prompts" in needs or row.language == pivot:
        return replace(row, chosen=None, rejected=None)
    return None


def answer_needs(languages: str | Sequence[Language], *, benign: bool) -> frozenset[Need]:
    """Return the needs of a method that trains on preferences in "pivot" alone, in "all" languages, or in some."""
    needs: set[Need] = {"pivot_preferences"}
    if languages != "pivot":
        needs.add("target_preferences")
    if benign:
        needs.add("benign_prompts")
    return frozenset(needs)


def preferences(corpus: Corpus, languages: str | Sequence[str], *, benign: bool, rejected: bool) -> tuple[Example, ...]:
    """Return the rows with answers, language by language.

    Args:
        corpus: What the method may see.
        languages: "pivot", "all", or language codes.
        benign: Whether harmless rows count as well.
        rejected: Whether a row needs a rejected answer besides the chosen one.

    Raises:
        ConfigError: A language is not one of the corpus.
        DataError: A language has no such row.
    """
    found: list[Example] = []
    for language in _codes(corpus, languages):
        rows = [row for row in corpus.rows(language) if row.chosen and (row.rejected or not rejected)]
        rows = [row for row in rows if benign or row.harmful]
        if not rows:
            raise DataError(f"the corpus has no answers to train on in {language!r}")
        found += rows
    return tuple(found)


def _codes(corpus: Corpus, languages: str | Sequence[str]) -> tuple[str, ...]:
    if languages == "pivot":
        return (corpus.pivot,)
    if languages == "all":
        return corpus.languages
    codes = (languages,) if isinstance(languages, str) else tuple(languages)
    for code in codes:
        if code not in corpus.languages:
            raise ConfigError(f"language {code!r} is not in the training corpus", allowed=corpus.languages)
    return codes


def lacks(corpus: Corpus, needs: Iterable[Need]) -> list[str]:
    """Return one sentence per need that the corpus cannot meet; an empty list means that it meets all."""
    pivot = [row for row in corpus.examples if row.language == corpus.pivot]
    targets = [row for row in corpus.examples if row.language != corpus.pivot]
    met = {
        "pivot_preferences": any(row.chosen and row.rejected for row in pivot),
        "parallel_prompts": bool(targets),
        "target_preferences": any(row.chosen and row.rejected for row in targets),
        "benign_prompts": any(not row.harmful for row in corpus.examples),
    }
    reasons = {
        "pivot_preferences": f"no chosen and rejected answers in the pivot language {corpus.pivot!r}",
        "parallel_prompts": f"no prompts in any language but {corpus.pivot!r}",
        "target_preferences": f"no chosen and rejected answers in any language but {corpus.pivot!r}",
        "benign_prompts": "no benign rows (harmful: false)",
    }
    return [f"{need}: {reasons[need]}" for need in sorted(needs) if not met[need]]


def require(corpus: Corpus, needs: Iterable[Need], method: str, where: Where | None = None) -> None:
    """Refuse a method whose needs the corpus cannot meet.

    Raises:
        NeedsError: Names the method and each need that is not met.
    """
    missing = lacks(corpus, needs)
    if missing:
        hint = "give the shootout a corpus that has them (key `corpus`), or drop the method"
        raise NeedsError(
            f"method {method!r} needs what the corpus does not have: {'; '.join(missing)}", where=where, hint=hint
        )


def restrict(corpus: Corpus, pivot: Language, languages: Sequence[Language]) -> Corpus:
    """Return the corpus in the shootout's training languages only, the pivot first."""
    wanted = (pivot, *[language for language in languages if language != pivot])
    rows = tuple(row for row in corpus.examples if row.language in wanted)
    present = {row.language for row in rows}
    languages = tuple(code for code in wanted if code in present or code == pivot)
    names = {code: corpus.names[code] for code in languages if code in corpus.names}
    return Corpus(pivot=pivot, languages=languages, examples=rows, names=names)


@dataclass(frozen=True, kw_only=True)
class Cleaned:
    """A corpus without the rows that the evaluation also asks.

    Attributes:
        overlaps: Task name -> ids of corpus rows found in it.
        matches: Task name -> kind of match -> how many source prompts, each counted once by its closest match.
    """

    corpus: Corpus
    overlaps: dict[str, tuple[str, ...]]
    matches: dict[str, dict[overlap.Match, int]]


def decontaminate(corpus: Corpus, tasks: Mapping[str, Iterable[Prompt]], *, near: bool) -> Cleaned:
    """Remove every source prompt of which any translation occurs in an evaluation task (see `mlbench.overlap`).

    Args:
        near: Whether near-duplicates are removed, too.
    """
    found = overlap.find(corpus.examples, tasks, near=near)
    dropped = {id for ids in found.values() for id in ids}
    kept = tuple(row for row in corpus.examples if row.id not in dropped)
    counts = {task: Counter(ids.values()) for task, ids in found.items()}
    return Cleaned(
        corpus=replace(corpus, examples=kept),
        overlaps={task: tuple(sorted(ids)) for task, ids in found.items()},
        matches={task: {kind: counts[task][kind] for kind in overlap.MATCHES} for task in found},
    )


def digest(corpus: Corpus) -> str:
    """Return the content hash of a corpus."""
    sha = hashlib.sha256(json.dumps([corpus.pivot, corpus.languages, sorted(corpus.names.items())]).encode())
    for row in corpus.examples:
        sha.update(json.dumps(asdict(row), sort_keys=True, ensure_ascii=False).encode())
    return sha.hexdigest()[:16]


def write_jsonl(corpus: Corpus, path: Path) -> None:
    """Write a corpus in the form that `read_jsonl` reads."""
    lines = (json.dumps(asdict(row), ensure_ascii=False, sort_keys=True) for row in corpus.examples)
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def read_jsonl(path: Path, pivot: Language) -> Corpus:
    """Return the corpus in a JSONL file.

    Raises:
        DataError: The file is missing, not UTF-8, or a line is malformed or repeats an (id, language).
    """
    if not path.is_file():
        raise DataError(f"corpus file {str(path)!r} does not exist (seen from {Path.cwd()})")
    rows: dict[tuple[str, str], Example] = {}
    try:
        # Not splitlines(): JSON strings may hold other line separators, such as U+2028.
        lines = path.read_text(encoding="utf-8").split("\n")
    except UnicodeDecodeError as error:
        raise DataError(f"corpus file {str(path)!r} is not UTF-8: byte {error.start}") from error
    for number, line in enumerate(lines, start=1):
        if line.strip():
            row = _example(line, Where(file=str(path), line=number))
            if (row.id, row.language) in rows:
                raise DataError(
                    f"id {row.id!r} occurs twice in {row.language!r}", where=Where(file=str(path), line=number)
                )
            rows[row.id, row.language] = row
    languages = tuple(dict.fromkeys([pivot, *(row.language for row in rows.values())]))
    return Corpus(
        pivot=pivot, languages=languages, examples=tuple(rows.values()), names=language_names(languages, pivot)
    )


def language_names(languages: Iterable[Language], pivot: Language) -> dict[Language, str]:
    """Return what the pivot calls each language, e.g. "Swahili"; a code unknown to Unicode's CLDR is missing."""
    from babel import Locale, UnknownLocaleError

    try:
        known = Locale.parse(pivot, sep="-").languages
    except (UnknownLocaleError, ValueError):
        return {}
    return {code: known[code.replace("-", "_")] for code in languages if code.replace("-", "_") in known}


def _example(line: str, where: Where) -> Example:
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        raise DataError(f"not a JSON object: {error.msg}", where=where) from error
    if not isinstance(row, dict):
        raise DataError("not a JSON object", where=where)
    for key in REQUIRED:
        if row.get(key) in (None, ""):
            raise DataError(f"column {key!r} is missing or empty", where=where, allowed=COLUMNS)
    for key, value in row.items():
        if key not in COLUMNS:
            raise DataError(f"unknown column {key!r}", where=where, allowed=COLUMNS, hint=nearest(key, COLUMNS))
        if not isinstance(value, TYPES.get(key, str) if value is not None else object):
            raise DataError(f"column {key!r} holds {value!r}, which is not {WORDS.get(key, 'text')}", where=where)
    return Example(
        id=str(row["id"]),
        cluster=str(row["id"] if row.get("cluster") in (None, "") else row["cluster"]),
        language=row["language"],
        prompt=row["prompt"],
        harmful=row.get("harmful") is not False,
        chosen=row.get("chosen") or None,
        rejected=row.get("rejected") or None,
    )
