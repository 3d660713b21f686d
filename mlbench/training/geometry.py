"""Measures of representations: how far translations agree, how far prompts differ, which layer holds meaning.

Vectors are compared by direction throughout, and nothing is centred first.
"""

from __future__ import annotations

import random
from collections.abc import Hashable, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import normalize, one_hot

from mlbench.core import Example, Language, Run
from mlbench.models import Loaded
from mlbench.training.fit import encode_prompts
from mlbench.training.hidden import Read, every_layer

PROBES = 64
"""Source prompts, at most, that a layer is chosen by."""

Group = Mapping[Language, Example]
"""One prompt in several languages."""


class Grouped(NamedTuple):
    """States of translations, prompt by prompt.

    Attributes:
        states: (prompts, languages, dim), zeros where there is no translation.
        present: (prompts, languages), whether there is one.
    """

    states: Tensor
    present: Tensor


def grouped(rows: Tensor, sizes: Sequence[int]) -> Grouped:
    """Return states (rows, dim), the translations of the first prompt first, as one block with gaps."""
    count = torch.tensor(sizes, device=rows.device)
    present = torch.arange(max(sizes), device=rows.device) < count[:, None]
    states = rows.new_zeros(*present.shape, rows.shape[-1]).masked_scatter(present[..., None], rows)
    return Grouped(states, present)


def unit_vectors(states: Tensor, present: Tensor) -> Tensor:
    """Return vectors of length one, and zeros where there is no translation.

    Args:
        states: (prompts, languages, dim), of any length; missing ones hold anything finite.
        present: (prompts, languages), whether there is a translation.
    """
    return normalize(states, dim=-1, eps=1e-12) * present[..., None]


def singular_values(units: Tensor) -> Tensor:
    """Return the singular values of each prompt's translations, (prompts, min(languages, dim)), largest first."""
    # Values only: their gradient u_j v_j^T is finite even where several of them coincide.
    values: Tensor = torch.linalg.svdvals(units)
    return values


def mean_cosine(units: Tensor, present: Tensor) -> Tensor:
    """Return the mean cosine between two different translations of each prompt, (prompts,), from -1 to 1.

    Each prompt needs two translations or more.
    """
    count = present.sum(-1)
    # |sum_l z_l|^2 = K + sum_(l != m) z_l . z_m
    cosines: Tensor = (units.sum(1).square().sum(-1) - count) / (count * (count - 1))
    return cosines


def effective_rank(values: Tensor) -> Tensor:
    """Return exp(entropy of sigma^2 / sum sigma^2) of each spectrum, (prompts,), from 1 to the number of values.

    References:
        Roy and Vetterli, "The effective rank: a measure of effective dimensionality", EUSIPCO 2007, on sigma^2.
    """
    energy = values.square()
    entropy: Tensor = torch.special.entr(energy / energy.sum(-1, keepdim=True)).sum(-1)
    return entropy.exp()


def mean_directions(units: Tensor) -> Tensor:
    """Return the direction of the mean of each prompt's translations, (prompts, dim)."""
    return normalize(units.sum(1), dim=-1, eps=1e-12)


def agreement(states: Tensor, present: Tensor) -> dict[str, float]:
    """Return how far the translations of a prompt agree, each a mean over prompts.

    Returns:
        `cosine`: mean cosine between two translations, signed;
        `top_share`: sigma_1^2 / K, the share of the spectrum in one direction, from 1 / K to 1;
        `effective_rank`: how many directions the translations spread over, from 1 to K.
    """
    units = unit_vectors(states.detach(), present)
    values = singular_values(units)
    return {
        "cosine": mean_cosine(units, present).mean().item(),
        "top_share": (values[:, 0].square() / present.sum(-1)).mean().item(),
        "effective_rank": effective_rank(values).mean().item(),
    }


def between(directions: Tensor, names: Sequence[Hashable]) -> dict[str, float]:
    """Return `between`, the mean cosine between prompts of different names; near 1 they have collapsed onto one.

    Args:
        directions: (prompts, dim), unit vectors.
        names: One per prompt; equal for one prompt drawn twice. With a single name nothing is returned.
    """
    codes = _codes(names, directions.device)
    apart = codes[:, None] != codes
    if not apart.any():
        return {}
    return {"between": (directions @ directions.T)[apart].mean().item()}


def instance_loss(directions: Tensor, names: Sequence[Hashable], temperature: float) -> Tensor:
    """Return how hard each prompt is to tell from the others, (prompts,): -log softmax_n(c . c_n / tau) at itself.

    It is the cross-entropy of C C^T / tau against the identity, 0 for a prompt alone.

    Args:
        directions: (prompts, dim), the unit vectors c.
        names: One per prompt; another row of the same name is left out of the softmax.
        temperature: tau.

    References:
        Liu et al., "Principled Multimodal Representation Learning", arXiv:2507.17343, on singular vectors.
    """
    codes = _codes(names, directions.device)
    again = (codes[:, None] == codes) & ~torch.eye(len(codes), dtype=torch.bool, device=codes.device)
    return -(directions @ directions.T / temperature).masked_fill(again, -torch.inf).log_softmax(-1).diagonal()


def contrast(directions: Tensor, marked: Sequence[bool]) -> dict[str, float]:
    """Return how far marked and unmarked prompts, e.g. harmful and harmless ones, lie apart.

    Args:
        directions: (prompts, dim), unit vectors.
        marked: One per prompt. Without both kinds nothing is returned.

    Returns:
        `class_cosine`: cosine between the mean direction of the one kind and of the other;
        `class_share`: tr(S_B) / tr(S_T), the share of the variance that lies between the kinds, from 0 to 1. Of n
        prompts without any difference it is 1 / (n - 1) on average, so compare it at one n.
    """
    first = torch.tensor(marked, device=directions.device)
    if first.all() or not first.any():
        return {}
    kinds = [directions[first], directions[~first]]
    centre = directions.mean(0)
    means = [kind.mean(0) for kind in kinds]
    total = (directions - centre).square().sum()
    # tr(S_B) = sum_c n_c |m_c - m|^2
    spread = sum(len(kind) * (mean - centre).square().sum() for kind, mean in zip(kinds, means, strict=True))
    cosine = torch.nn.functional.cosine_similarity(means[0], means[1], dim=0)
    return {"class_cosine": cosine.item(), "class_share": (spread / total.clamp(min=1e-12)).item()}


def monitor(states: Tensor, present: Tensor, names: Sequence[Hashable], marked: Sequence[bool]) -> dict[str, float]:
    """Return all of `agreement`, `between` and `contrast` that can be said of these prompts."""
    directions = mean_directions(unit_vectors(states.detach(), present))
    return agreement(states, present) | between(directions, names) | contrast(directions, marked)


def cosine_distances(vectors: Tensor) -> Tensor:
    """Return 1 - cosine between any two rows, (rows, rows), from 0 to 2."""
    units = normalize(vectors, dim=-1)
    return (1 - units @ units.T).clamp(min=0).fill_diagonal_(0)


def silhouette(distances: Tensor, labels: Sequence[Hashable]) -> float:
    """Return the mean silhouette of rows under labels, from -1 to 1.

    With a the mean distance to the other rows of one's label, and b the smallest mean distance to the rows of another
    label, a row scores (b - a) / max(a, b), and 0 where it is alone with its label.

    Args:
        distances: (rows, rows), zero on the diagonal.
        labels: One per row, two different ones at least.

    References:
        Rousseeuw, "Silhouettes: a graphical aid to the interpretation and validation of cluster analysis", 1987.
    """
    codes = _codes(labels, distances.device)
    members = one_hot(codes).to(distances.dtype)
    sizes = members.sum(0)
    assert len(sizes) > 1, "a silhouette needs two labels"
    sums = distances @ members
    own = sizes[codes]
    within = sums.gather(1, codes[:, None])[:, 0] / (own - 1).clamp(min=1)
    nearest = (sums / sizes).scatter(1, codes[:, None], torch.inf).amin(-1)
    scores = (nearest - within) / torch.maximum(nearest, within).clamp(min=1e-12)
    return scores.masked_fill(own == 1, 0).mean().item()


class LayerScore(NamedTuple):
    """How the states after one layer cluster.

    Attributes:
        meaning: Silhouette of rows labelled by source prompt.
        language: Silhouette of the same rows labelled by language.
    """

    meaning: float
    language: float

    @property
    def gap(self) -> float:
        """Return by how much meaning orders the states more than language does."""
        return self.meaning - self.language


class Probes(NamedTuple):
    """The prompts that a layer is chosen by.

    Attributes:
        groups: At most one of each cluster.
        rest: What a training may draw.
    """

    groups: tuple[Group, ...]
    rest: tuple[Group, ...]


def probes(groups: Sequence[Group], pivot: Language, seed: int) -> Probes:
    """Return a sample of at most 64 prompts, and the others.

    The sample stays among the others where these would otherwise be fewer than the sample in some language.
    """
    shuffled = random.Random(seed).sample(range(len(groups)), len(groups))
    # Near-duplicates would count as different meanings.
    by_cluster = {groups[index][pivot].cluster: index for index in shuffled}
    taken = list(by_cluster.values())[:PROBES]
    sample = tuple(groups[index] for index in taken)
    rest = tuple(group for index, group in enumerate(groups) if index not in taken)
    spoken = {language for group in groups for language in group}
    scarce = any(sum(language in group for group in rest) < len(sample) for language in spoken)
    return Probes(sample, tuple(groups) if scarce else rest)


def layer_scores(loaded: Loaded, groups: Sequence[Group], read: Read, run: Run) -> list[LayerScore]:
    """Return the scores of each layer of a start model, the first layer first, by cosine distance.

    Args:
        loaded: The start model.
        groups: Translations of the prompts to look at; they are reported as read.
        read: Which state of a prompt to look at.
        run: Length limit, and where to report.

    References:
        The rule "largest semantic minus language silhouette" is that of LASA, arXiv:2604.12710.
    """
    rows = [row for group in groups for row in group.values()]
    run.consume(rows, answers=False)
    states = every_layer(loaded, encode_prompts(loaded, rows, run.training.max_length), read)
    distances = [cosine_distances(layer) for layer in states]
    meanings, languages = [row.id for row in rows], [row.language for row in rows]
    return [LayerScore(silhouette(each, meanings), silhouette(each, languages)) for each in distances]


class Choice(NamedTuple):
    """A layer, and the prompts that it was not chosen by, as far as they can be spared."""

    layer: int
    rest: tuple[Group, ...]


def choose_layer(loaded: Loaded, groups: Sequence[Group], pivot: Language, read: Read, run: Run) -> Choice:
    """Return the layer whose states cluster by meaning most and by language least, and record the evidence."""
    sample, rest = probes(groups, pivot, run.seed)
    scores = layer_scores(loaded, sample, read, run)
    run.record(
        layer_probes=len(sample),
        layer_probes_held_out=len(groups) - len(rest),
        layer_silhouettes_meaning=" ".join(f"{score.meaning:.4f}" for score in scores),
        layer_silhouettes_language=" ".join(f"{score.language:.4f}" for score in scores),
    )
    return Choice(best_layer(scores), rest)


def best_layer(scores: Sequence[LayerScore]) -> int:
    """Return the layer with the largest gap, counted from 1; of equal ones the lowest."""
    return max(range(len(scores)), key=lambda index: (scores[index].gap, -index)) + 1


def _codes(labels: Sequence[Hashable], device: torch.device) -> Tensor:
    codes = {label: code for code, label in enumerate(dict.fromkeys(labels))}
    return torch.tensor([codes[label] for label in labels], device=device)
