"""What the MLPs of chosen layers read and compute on prompts, summed up batch by batch.

An MLP with gated units reads x and computes act(x W_gate) * (x W_up), which its down projection reads. Of each prompt
only pooled vectors are kept, of tokens only second moments, so memory does not grow with the number of tokens. Layers
count from 1, as in `hidden`.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from mlbench.core import Corpus, Example, Language
from mlbench.errors import DataError, JobError
from mlbench.models import Loaded
from mlbench.training import fit, hidden

Signal = Literal["gate", "up", "product"]
"""Values of an MLP's units: what the gate or up projection returns (no nonlinearity yet), or the gated product."""

Pool = Literal["last", "mean", "max"]
"""Which of a prompt's tokens stand for it: the last one, or the mean or the maximum over all of them."""


class Mlp(NamedTuple):
    """One MLP on one batch, each (rows, tokens, width)."""

    inputs: Tensor
    gate: Tensor
    up: Tensor
    product: Tensor


@dataclass(kw_only=True)
class Gram:
    """X^T X of rows that are not kept, in float64.

    Attributes:
        matrix: (dim, dim).
        rows: How many rows of X there were.
    """

    matrix: Tensor
    rows: int = 0

    @classmethod
    def zero(cls, width: int, device: torch.device) -> Gram:
        """Return the second moment of no rows."""
        return cls(matrix=torch.zeros(width, width, dtype=torch.float64, device=device))

    def add(self, rows: Tensor) -> None:
        """Add rows, (rows, dim)."""
        rows = rows.double()
        self.matrix.addmm_(rows.T, rows)
        self.rows += len(rows)

    def norm(self, weight: Tensor) -> float:
        """Return the Frobenius norm of X @ weight for a weight (dim, units)."""
        # |X w|^2 = sum over the columns of w^T (X^T X) w
        return (weight * (self.matrix @ weight)).sum().clamp(min=0).sqrt().item()


@dataclass(kw_only=True)
class Moments:
    """Mean and spread of values whose rows are not kept, in float64.

    Attributes:
        count: Rows seen.
        total: (units,), their sum.
        squares: (units,), the sum of their squares.
    """

    count: int = 0
    total: Tensor | float = 0.0
    squares: Tensor | float = 0.0

    def add(self, rows: Tensor) -> None:
        """Add rows, (rows, units)."""
        rows = rows.double()
        self.count += len(rows)
        self.total = self.total + rows.sum(0)
        self.squares = self.squares + rows.square().sum(0)

    @property
    def mean(self) -> Tensor:
        """Return the mean of each unit, (units,)."""
        return torch.as_tensor(self.total / self.count)

    @property
    def deviation(self) -> Tensor:
        """Return the sum of squared deviations from the mean of each unit, (units,)."""
        return (torch.as_tensor(self.squares) - self.count * self.mean.square()).clamp(min=0)


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What to keep of a group of prompts.

    Attributes:
        pool: Which tokens stand for a prompt in `Summary.inputs`. Pooling by the maximum does not commute with the
            linear maps that are fitted to these rows, so it is not offered.
        signals: Whose moments to keep.
        signal_pool: Which tokens stand for a prompt in those moments.
        tokens: Which tokens the second moment is made of; "none" leaves it as it is.
    """

    pool: Literal["last", "mean"] = "last"
    signals: tuple[Signal, ...] = ()
    signal_pool: Pool = "last"
    tokens: Literal["all", "last", "none"] = "none"


class Summary(NamedTuple):
    """What is kept of a group of prompts at one layer.

    Attributes:
        inputs: (prompts, dim), one pooled MLP input per prompt, in their order; float32 or wider.
        moments: Mean and spread of each signal.
    """

    inputs: Tensor
    moments: dict[Signal, Moments]


def mlp(model: nn.Module, layer: int) -> Any:
    """Return the MLP of a layer.

    Raises:
        DataError: It has no separate gate, up and down projections.
    """
    decoder: Any = getattr(model, "get_decoder", lambda: model)()
    found = getattr(decoder.layers[layer - 1], "mlp", None)
    if not all(isinstance(getattr(found, name, None), nn.Linear) for name in ("gate_proj", "up_proj", "down_proj")):
        raise DataError(f"layer {layer} of {type(decoder).__name__} has no MLP with gate_proj, up_proj and down_proj")
    return found


def pool(values: Tensor, mask: Tensor, how: Pool) -> Tensor:
    """Return one vector per row, (rows, width), float32 or wider; padding counts for nothing."""
    if how == "last":
        values = hidden.last_token(values, mask)
    values = values.to(torch.promote_types(values.dtype, torch.float32))
    if how == "mean":
        return hidden.mean_token(values, mask)
    if how == "max":
        return values.masked_fill(mask[..., None] == 0, -torch.inf).amax(1)
    return values


@torch.no_grad()
def summarise(
    loaded: Loaded,
    prompts: Sequence[Sequence[int]],
    layers: Sequence[int],
    wanted: Wanted,
    grams: dict[int, Gram],
    *,
    batch_size: int = hidden.BATCH,
) -> dict[int, Summary]:
    """Return what is wanted of prompts, by layer; the second moments of their tokens are added to `grams`."""
    order = sorted(range(len(prompts)), key=lambda index: -len(prompts[index]))
    back = torch.tensor(order, device=loaded.device).argsort()
    pooled: dict[int, list[Tensor]] = {layer: [] for layer in layers}
    moments = {layer: {signal: Moments() for signal in wanted.signals} for layer in layers}

    def see(layer: int, seen: Mlp, mask: Tensor) -> None:
        pooled[layer].append(pool(seen.inputs, mask, wanted.pool))
        for signal in wanted.signals:
            moments[layer][signal].add(pool(getattr(seen, signal), mask, wanted.signal_pool))
        if wanted.tokens != "none":
            rows = seen.inputs[mask.bool()] if wanted.tokens == "all" else hidden.last_token(seen.inputs, mask)
            grams[layer].add(rows)

    for at in range(0, len(order), batch_size):
        rows = [prompts[index] for index in order[at : at + batch_size]]
        block = hidden.pad(rows, loaded.tokenizer.pad_token_id, loaded.device)
        with _watch(loaded.model, layers, lambda layer, seen, mask=block.mask: see(layer, seen, mask)):  # type: ignore[misc]
            hidden.hidden_states(loaded.model, block, max(layers))
    return {layer: Summary(torch.cat(pooled[layer])[back], moments[layer]) for layer in layers}


@contextmanager
def _watch(model: nn.Module, layers: Sequence[int], see: Callable[[int, Mlp], None]) -> Iterator[None]:
    """Show `see` each layer's MLP while the block runs; nothing of it is kept here."""
    handles = [handle for layer in layers for handle in _hooks(mlp(model, layer), layer, see)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _hooks(module: Any, layer: int, see: Callable[[int, Mlp], None]) -> list[Any]:
    parts: dict[str, Tensor] = {}

    def gate(_: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        parts.update(inputs=inputs[0], gate=output)

    def up(_: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        parts.update(up=output)

    def down(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        see(layer, Mlp(**parts, product=inputs[0]))
        parts.clear()

    return [
        module.gate_proj.register_forward_hook(gate),
        module.up_proj.register_forward_hook(up),
        module.down_proj.register_forward_pre_hook(down),
    ]


class Group(NamedTuple):
    """Prompts that are read together: one language, harmful or benign, to fit to or held out."""

    language: Language
    harmful: bool
    held: bool


Sample = dict[Group, tuple[Example, ...]]


def draw(corpus: Corpus, harmful: int, benign: int, *, held_out: float, seed: int) -> Sample:
    """Return at most so many harmful and benign prompts of each language; harmful ones are pairs with the pivot.

    Near-duplicates are either all held out or all not. The languages share source prompts as far as they have them;
    the pivot has the partner of every pair, so it may have more than the number asked for.

    Raises:
        DataError: A language has so few prompts of a kind that all of them are held out.
    """
    chooser = random.Random(seed)
    paired = {row.id for row in corpus.rows(corpus.pivot) if row.harmful} & {
        row.id for row in corpus.examples if row.language != corpus.pivot
    }
    sample: Sample = {}
    for bad, limit in ((True, harmful), (False, benign)):
        rows = [row for row in corpus.examples if row.harmful == bad and (row.id in paired or not bad)]
        clusters = sorted({row.cluster for row in rows})
        chooser.shuffle(clusters)
        apart = set(clusters[: _share(held_out, len(clusters))])
        place = {cluster: at for at, cluster in enumerate(clusters)}
        rows.sort(key=lambda row: (place[row.cluster], row.id))
        limits = {True: _share(held_out, limit), False: limit - _share(held_out, limit)}
        for held in (False, True):
            part = [row for row in rows if (row.cluster in apart) == held]
            groups = {
                Group(language, bad, held): tuple(row for row in part if row.language == language)[: limits[held]]
                for language in corpus.languages
            }
            if bad:
                ids = {row.id for group, own in groups.items() if group.language != corpus.pivot for row in own}
                pairs = (row for row in part if row.language == corpus.pivot and row.id in ids)
                groups[Group(corpus.pivot, bad, held)] = tuple(pairs)
            sample |= groups
    for group, own in sample.items():
        if group.held and own and not sample[group._replace(held=False)]:
            kind = "harmful" if group.harmful else "benign"
            raise DataError(f"all {len(own)} {kind} prompts in {group.language!r} are held out; add some")
    return {group: rows for group, rows in sample.items() if rows}


def _share(held_out: float, count: int) -> int:
    return max(1, min(round(held_out * count), count - 2))


class Pairs(NamedTuple):
    """MLP inputs of the same harmful prompts in another language and in the pivot's, (rows, dim), float64."""

    low: Tensor
    pivot: Tensor


@dataclass(frozen=True, kw_only=True)
class Reading:
    """What a model makes of a sample.

    Attributes:
        groups: Summaries by group and layer.
        benign: Second moments of the tokens wanted, by held-out and layer.
        tokens: Tokens read.
    """

    pivot: Language
    sample: Sample
    groups: dict[Group, dict[int, Summary]]
    benign: dict[bool, dict[int, Gram]]
    tokens: int

    def pairs(self, layer: int, *, held: bool) -> Pairs:
        """Return the pairs of all languages, to fit to or held out."""
        low, places = [], []
        partners = Group(self.pivot, True, held)
        place = {row.id: at for at, row in enumerate(self.sample[partners])}
        for group, rows in self.sample.items():
            if group.harmful and group.held == held and group != partners:
                low.append(self.groups[group][layer].inputs)
                places += [place[row.id] for row in rows]
        pivot = self.groups[partners][layer].inputs
        return Pairs(torch.cat(low).double(), pivot[places].double())


def read(
    loaded: Loaded,
    corpus: Corpus,
    sample: Sample,
    layers: Sequence[int],
    wanted: Callable[[Group], Wanted],
    *,
    max_length: int,
    batch_size: int = 0,
) -> Reading:
    """Return what a model makes of a sample at some layers.

    Raises:
        JobError: An activation is not finite.
        DataError: A prompt has more than `max_length` tokens.
    """
    widths = {layer: mlp(loaded.model, layer).gate_proj.in_features for layer in layers}
    grams = {
        held: {layer: Gram.zero(width, loaded.device) for layer, width in widths.items()} for held in (False, True)
    }
    groups = {}
    tokens = 0
    for group, rows in sample.items():
        prompts = fit.encode_prompts(loaded, rows, max_length)
        tokens += sum(map(len, prompts))
        sums = grams[group.held]
        groups[group] = summarise(loaded, prompts, layers, wanted(group), sums, batch_size=batch_size or hidden.BATCH)
        for layer in layers:
            if not (groups[group][layer].inputs.isfinite().all() and sums[layer].matrix.isfinite().all()):
                raise JobError(
                    f"the inputs of the MLP of layer {layer} are not finite for prompts in {group.language!r}"
                )
    return Reading(pivot=corpus.pivot, sample=sample, groups=groups, benign=grams, tokens=tokens)
