"""What the methods of a run did to the representations of their models, layer by layer and language by language.

Read off the last prompt token of the prompts that the run's safety and over-refusal tasks ask. These are diagnostics,
never a safety result: a model can separate harmful from harmless prompts perfectly and comply with both.

References:
    The share of variance between classes follows "The Hidden Space of Safety", arXiv:2504.02708; the direction from
    harmless to harmful prompts in the pivot follows "Refusal in Language Models Is Mediated by a Single Direction",
    arXiv:2406.11717.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pandas as pd

from mlbench.core import Language, Prompt
from mlbench.errors import DataError
from mlbench.store import Store

COLUMNS = (
    *("model", "method", "seed", "layer", "language", "tier", "trained"),
    *("pivot_cosine", "between", "class_share", "transfer"),
)
PROMPTS = 120
"""Prompts per task and language that are read, at most."""

Progress = Callable[[str, int, int], None]


def probe(plan: Mapping[str, Any], store: Store, progress: Progress) -> pd.DataFrame:
    """Return one line per finished checkpoint, layer and language.

    `pivot_cosine`: mean cosine between a prompt and its translation in the pivot;
    `between`: mean cosine between different prompts; near 1 they have collapsed onto one direction;
    `class_share`: tr(S_B) / tr(S_T), the share of the variance that lies between harmful and harmless prompts;
    `transfer`: distance of harmful from harmless prompts along the pivot's own direction from harmless to harmful,
    in units of the distance in the pivot; 1 means that a language is as separated as the pivot, 0 not at all.

    Raises:
        DataError: The run has no safety task and over-refusal task with prompts in the pivot.
    """
    asked = {kind: _asked(plan, store, kind) for kind in ("safety", "over_refusal")}
    for kind, prompts in asked.items():
        if plan["pivot"] not in prompts:
            raise DataError(
                f"the run has no {kind} task in the pivot {plan['pivot']!r}, so there is nothing to compare"
            )
    places = {(cell["model"], cell["method"], cell["seed"]): cell["chain"][-1] for cell in plan["cells"]}
    facts = {cell["language"]: {"tier": cell["tier"], "trained": cell["trained"]} for cell in plan["cells"]}
    lines: list[dict[str, Any]] = []
    read: dict[str, list[dict[str, Any]]] = {}
    for done, ((model, method, seed), key) in enumerate(places.items()):
        progress(f"{method} on {model}, seed {seed}", done, len(places))
        if store.is_done(key):
            if key not in read:  # methods without a seed have one checkpoint for all of them
                read[key] = _read(store, key, asked, plan["pivot"])
            where = {"model": model, "method": method, "seed": seed}
            lines += [where | line | facts[line["language"]] for line in read[key]]
    return pd.DataFrame(lines, columns=list(COLUMNS))


def _asked(plan: Mapping[str, Any], store: Store, kind: str) -> dict[Language, list[Prompt]]:
    """Return the prompts of the first task of a kind, by language."""
    cells = [cell for cell in plan["cells"] if cell["kind"] == kind]
    first = [cell for cell in cells if cell["task"] == cells[0]["task"]]  # none where there are no cells
    keys = {cell["language"]: plan["jobs"][cell["judge_key"]]["spec"]["prompts"] for cell in first}
    return {language: _spread(store.prompts(key)) for language, key in keys.items()}


def _spread(prompts: Sequence[Prompt]) -> list[Prompt]:
    """Return evenly spaced prompts, the same ones in every language of a parallel task."""
    step = max(1, -(-len(prompts) // PROMPTS))
    return list(prompts[::step])


def _read(
    store: Store, key: str, asked: Mapping[str, Mapping[Language, Sequence[Prompt]]], pivot: Language
) -> list[dict[str, Any]]:
    from mlbench import models
    from mlbench.training import hidden

    loaded = models.load(store.checkpoint(key))
    languages = [language for language in asked["safety"] if language in asked["over_refusal"]]
    states = {}
    for language in [pivot, *[other for other in languages if other != pivot]]:
        prompts = [*asked["safety"][language], *asked["over_refusal"][language]]
        rows = [models.tokens(loaded, models.render(loaded, prompt.text, language)) for prompt in prompts]
        states[language] = hidden.every_layer(loaded, rows, hidden.last_token)
    lines = []
    for language, layers in states.items():
        harmful = len(asked["safety"][language])
        ids = [[prompt.id for kind in asked.values() for prompt in kind[each]] for each in (language, pivot)]
        for layer in range(len(layers)):
            measured = measure(layers[layer], states[pivot][layer], harmful, len(asked["safety"][pivot]), ids)
            lines.append({"layer": layer + 1, "language": language, **measured})
    return lines


def measure(here: Any, pivot: Any, harmful: int, harmful_pivot: int, ids: Sequence[Sequence[str]]) -> dict[str, float]:
    """Return the measures of one layer in one language; rows are harmful prompts first, then harmless ones."""
    from torch.nn.functional import cosine_similarity, normalize

    from mlbench.training import geometry

    places = {id: place for place, id in enumerate(ids[1])}
    pairs = [(mine, places[id]) for mine, id in enumerate(ids[0]) if id in places]
    mine, theirs = (list(side) for side in zip(*pairs, strict=True)) if pairs else ([], [])
    units = normalize(here, dim=-1)
    direction = pivot[:harmful_pivot].mean(0) - pivot[harmful_pivot:].mean(0)
    gap = here[:harmful].mean(0) - here[harmful:].mean(0)
    return {
        "pivot_cosine": cosine_similarity(here[mine], pivot[theirs], dim=-1).mean().item(),
        "between": geometry.between(units, ids[0])["between"],
        "class_share": geometry.contrast(units, [place < harmful for place in range(len(here))])["class_share"],
        # (m_harmful - m_harmless) . d / |d|^2
        "transfer": (gap @ direction / direction.square().sum().clamp(min=1e-12)).item(),
    }
