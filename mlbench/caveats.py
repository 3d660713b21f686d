"""What a reader has to know before believing a run, by its plan alone: models, judges, data and selection."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from mlbench.store import Store

FAMILIES = {
    "qwen": "Qwen", "qwq": "Qwen", "llama": "Llama", "gemma": "Gemma", "mistral": "Mistral", "ministral": "Mistral",
    "mixtral": "Mistral", "wildguard": "Mistral", "polyguard": "Mistral", "harmbench": "Llama", "gpt": "GPT",
    "claude": "Claude", "gemini": "Gemini", "deepseek": "DeepSeek", "phi": "Phi", "olmo": "OLMo", "aya": "Command",
    "command": "Command", "granite": "Granite",
}  # fmt: skip
"""Word in the name of a model -> its family. WildGuard is a Mistral, PolyGuard's released weights are a Ministral."""


def caveats(data: Mapping[str, Any], store: Store) -> tuple[str, ...]:
    """Return one sentence per finding.

    Args:
        data: A plan as `reporting.planned` returns it.
    """
    return (*_gate(store), *_judges(data), *_overlaps(data["overlaps"]), *_selection(data["selection"]))


def _gate(store: Store) -> Iterator[str]:
    path = store.root / "gate.json"
    failed = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    for model, criteria in failed.items():
        yield f"{model} fails its acceptance gate ({'; '.join(criteria)}): it does not show the problem cleanly."


def _judges(data: Mapping[str, Any]) -> Iterator[str]:
    """Yield the judges that are of the same family as a model they judge."""
    pairs = {(cell["model"], _named(data["jobs"][cell["judge_key"]]["spec"])) for cell in data["cells"]}
    sources = {model["name"]: f"{model['name']} {model['source']}" for model in data["models"]}
    for model, judge in sorted(pairs):
        for family in sorted(families(sources[model]) & families(judge)):
            yield f"{model} and its judge ({judge}) are both {family} models: a judge may favour its own family."


def _named(spec: Mapping[str, Any]) -> str:
    named = (spec["fields"].get(name) for name in ("model", "source"))
    return " ".join([spec["judge"], *(str(name) for name in named if name)])


def families(name: str) -> set[str]:
    """Return the families of models that a name speaks of; a name says nothing certain, and often nothing at all.

    A word counts at the beginning of a part of the name or at its end: "Qwen3Guard-Gen-4B", "shieldgemma-9b".
    """
    parts = [part for part in re.split(r"[^a-z]+", name.lower()) if part]
    return {
        family for word, family in FAMILIES.items() for part in parts if part.startswith(word) or part.endswith(word)
    }


def _overlaps(overlaps: Mapping[str, Mapping[str, Mapping[str, int]]]) -> Iterator[str]:
    """Yield the evaluation tasks whose prompts the training corpus holds."""
    for model, tasks in overlaps.items():
        for task, counts in tasks.items():
            kinds = ", ".join(f"{count} {kind}" for kind, count in counts.items() if count)
            if kinds:
                yield (
                    f"{task}: its prompts also stand in the training corpus of {model} ({kinds}). They were removed "
                    "from training; what was rephrased further is not found."
                )


def _selection(log: Mapping[str, Any]) -> Iterator[str]:
    """Yield the methods that did not get the settings that the rule asks for."""
    if not log:
        return
    if log["fixed"]:
        yield f"{', '.join(log['fixed'])}: settings as given, not selected."
    if missed := [label for label, found in log["methods"].items() if not found["admissible"]]:
        yield (
            f"{', '.join(missed)}: no trial met the conditions of the selection rule; the one that misses them by "
            "least was taken."
        )
