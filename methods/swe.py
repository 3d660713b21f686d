"""SWE: sparse weight editing, a closed-form change of the MLP units that react to harmful prompts.

Of one layer's gate and up projections, the units S whose outputs rise on harmful prompts in the pivot language,

    z_j = (Delta_j - mean Delta) / std Delta > tau_mag   or   d_j = Delta_j / s_pooled > tau_stat,
    Delta = mean over harmful - mean over benign prompts,

are to answer harmful prompts in other languages as they answer the pivot's. With X_low and X_pivot the MLP inputs of
translations of one prompt, X_safe those of benign prompts, and the gap D = Y_target - X_low W_S:

    min over rank(dW) <= r of   |X_low dW - D|^2 / N_h + gamma |X_safe dW|^2 / N_s + lambda' |dW|^2

    Q = X_low^T X_low / N_h + gamma X_safe^T X_safe / N_s + lambda' I = L L^T,   G = X_low^T D / N_h
    L^-1 G = U Sigma V^T,   dW = L^-T U_r Sigma_r V_r^T                        (Theorem 4.1)

Its cost over the best dW of any rank is the sum of the squared singular values left out. The result is an exact rank-r
LoRA adapter on the edited projections; all other weights, and all rows but those of S, stay bit-identical.

Source: Liang et al., "Multilingual Safety Alignment Via Sparse Weight Editing", arXiv:2602.22554 (v1). No code was
released. The paper does not say which layer, gamma, lambda, token, modules and number of prompts it used: these are
fields here, with defaults of ours. Deviations and choices:
- the paper's gamma is `gamma` N_h / N_s, its lambda is `ridge` N_h mean(diag(X_low^T X_low / N_h)): without units;
- printed, Y_target is a value after the nonlinearity and D is taken against one before it, so that D is not 0 where
  X_low = X_pivot. The default compares like with like, D = (X_pivot - X_low) W_S; "literal" is what is printed;
- the layer is chosen by what the edit achieves on held-out prompts; a trust region raises lambda where it is too large;
- benign prompts are read without answers, at all their tokens;
- `variant="hard"` is ours, after the null-space projection of AlphaEdit (arXiv:2410.02355), in another space.
"""

from __future__ import annotations

import json
from collections.abc import Container, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

from mlbench.core import Checkpoint, Corpus, Effect, Fidelity, Language, Method, Need, Preset, Run, Shape
from mlbench.errors import ConfigError, DataError, JobError

if TYPE_CHECKING:
    from torch import Tensor, nn

    from mlbench.training.activations import Group, Moments, Reading, Signal, Wanted
    from mlbench.training.edit import LowRank, Result, RowEdit, Target

RAISES = 8
"""How often the trust region may raise lambda tenfold."""
SHALLOW = 8
"""Up to this depth "auto" tries every layer."""
FEWEST = 3
"""Source prompts of each kind: two to fit and to measure a spread, one held out."""

# Unsafe answers to 313 prompts in 8 languages: none, SWE, MPO, MPO and then SWE.
TABLE_6: Mapping[str, tuple[int, int, int, int]] = {
    "Llama-3.2-1B": (708, 439, 489, 325),
    "Llama-3.2-3B": (294, 163, 232, 135),
    "Qwen2-0.5B": (1524, 1194, 760, 475),
    "Qwen2-1.5B": (537, 246, 31, 16),
    "Qwen2.5-1.5B": (615, 326, 100, 97),
    "Qwen2.5-3B": (644, 224, 187, 60),
    "Qwen2.5-7B": (282, 125, 84, 29),
}


def select(harmful: Moments, benign: Moments, *, tau_mag: float, tau_stat: float) -> Tensor:
    """Return the units that rise on harmful prompts, (units,), True or False."""
    delta = harmful.mean - benign.mean
    # z_j = (Delta_j - mean Delta) / std Delta, over all units of the layer
    z = (delta - delta.mean()) / delta.std(correction=0)
    # s_pooled^2 = (sum of squared deviations of both groups) / (n_h + n_b - 2)
    pooled = ((harmful.deviation + benign.deviation) / (harmful.count + benign.count - 2)).sqrt()
    return (z > tau_mag) | (delta / pooled > tau_stat)


def truncate(lower: Tensor, cross: Tensor, rank: int) -> LowRank:
    """Return the best dW of a rank, given L and G: Theorem 4.1 in the form that never inverts Q."""
    import torch

    from mlbench.training.edit import LowRank

    # L^-1 G = U Sigma V^T
    u, sigma, vt = torch.linalg.svd(torch.linalg.solve_triangular(lower, cross, upper=False), full_matrices=False)
    root = sigma[:rank].sqrt()
    # dW = (L^-T U_r Sigma_r^1/2) (V_r Sigma_r^1/2)^T
    return LowRank(torch.linalg.solve_triangular(lower.T, u[:, :rank] * root, upper=True), vt[:rank].T * root)


def gap(low: Tensor, pivot: Tensor, linear: Tensor, bias: Tensor | None, act: Any = None) -> Tensor:
    """Return D for units (dim, units): what the pivot's inputs give more than the others', `act` being its target's."""
    if act is None:
        return (pivot - low) @ linear
    shift = 0 if bias is None else bias
    return act(pivot @ linear + shift) - (low @ linear + shift)  # type: ignore[no-any-return]


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class SWE:
    """Sparse weight editing. "Ours" marks what the paper does not state or does not have.

    Attributes:
        tau_mag: A unit is selected where its z-score among the layer's units is larger; 2.0 is the paper's.
        tau_stat: ... or where its Cohen's d is larger; 1.0 is the paper's.
        neuron_language: "pivot" is the paper; "union" adds the units selected in any other language.
        signal: What is compared. "separate", ours after the authors' sources: what the gate and the up projection
            return, each with its own S; "product": the value of the gated unit, one S for both.
        modules: Projections that are edited.
        pool: Token that stands for a prompt in the regression, ours: the last one, or the mean of all.
        neuron_pool: The same where units are selected; ours.
        target_space: What Y_target is; see the top of the module.
        variant: "soft" is the paper; "hard" writes nothing into protected benign directions and has no gamma.
        gamma: Weight of the benign prompts; ours.
        ridge: lambda as a share of the size of the inputs; ours.
        ridge_scale: That size: the mean square of an input dimension, or the median over dimensions, which a few
            massive ones do not lift.
        protected: Of "hard": share of the benign eigenvectors that is protected, the strongest first.
        rank: r; the default of 32 is inferred from the paper's tables.
        layer: An index from 1, a share of the depth, several indices (edited front to back, each on the inputs that
            the edits before it leave), or "auto": of the layers between 40 and 90 % of the depth (of all up to a depth
            of 8) the one whose edit closes most of the gap on held-out prompts. The paper edits one it does not name.
        n_harm: Harmful prompts per language, drawn by the seed; ours.
        n_safe: Benign prompts per language, from every language that has some; ours.
        held_out: Share of both that only measures; no near-duplicate of it is fitted to.
        safe_tokens: Tokens of benign prompts that are protected.
        protect_pivot: Whether the pivot's harmful prompts are protected like benign ones.
        max_relative_update: Trust region: limit of |dW| / |W_S|; ours.
        max_benign_change: Trust region: limit of |X_safe dW| / |X_safe W_S| on held-out prompts; ours.
        max_length: Longest prompt in tokens; a longer one is refused.
    """

    paper: ClassVar[str] = "arXiv:2602.22554"
    fidelity: ClassVar[Fidelity] = "paper"
    effect: ClassVar[Effect] = "edit"
    needs: ClassVar[frozenset[Need]] = frozenset({"parallel_prompts", "benign_prompts"})
    presets: ClassVar[Mapping[str, Preset]] = {
        "paper": Preset(
            note="what the paper states: z > 2 or d > 1 in the pivot, gate and up, soft penalty, one layer, rank 32",
            fields={"tau_mag": 2.0, "tau_stat": 1.0, "modules": "both", "variant": "soft", "rank": 32},
        ),
        "literal": Preset(
            note="as printed: activations as targets, against values before the nonlinearity",
            fields={"target_space": "literal"},
        ),
        "hard": Preset(
            note="ours: nothing is written into the strongest benign directions", fields={"variant": "hard"}
        ),
    }
    reported: ClassVar[tuple[Mapping[str, str | float], ...]] = tuple(
        {
            "source": "Multi-StrongREJECT, total of Table 6",
            "model": model,
            "metric": "ASR, 8 languages, %",
            "method": method,
            "value": round(100 * count / 2504, 2),
        }
        for model, counts in TABLE_6.items()
        for method, count in zip(("none", "swe", "mpo", "mpo+swe"), counts, strict=True)
    )
    citation: ClassVar[str] = """@misc{liang2026multilingual,
  title = {Multilingual Safety Alignment Via Sparse Weight Editing},
  author = {Liang, Jiaming and Wang, Zhaoxin and Wang, Handing},
  year = {2026},
  eprint = {2602.22554},
  archivePrefix = {arXiv},
  primaryClass = {cs.LG}
}"""

    tau_mag: float = 2.0
    tau_stat: float = 1.0
    neuron_language: Literal["pivot", "union"] = "pivot"
    signal: Literal["separate", "product"] = "separate"
    modules: Literal["both", "gate", "up"] = "both"
    pool: Literal["last", "mean"] = "last"
    neuron_pool: Literal["last", "mean", "max"] = "last"
    target_space: Literal["preact", "literal"] = "preact"
    variant: Literal["soft", "hard"] = "soft"
    gamma: Annotated[float, Field(ge=0)] = 1.0
    ridge: Annotated[float, Field(gt=0)] = 0.01
    ridge_scale: Literal["mean", "median"] = "mean"
    protected: Annotated[float, Field(gt=0, lt=1)] = 0.5
    rank: Annotated[int, Field(ge=1)] = 32
    layer: (
        Literal["auto"]
        | Annotated[int, Field(ge=1)]
        | Annotated[float, Field(gt=0, lt=1)]
        | Annotated[tuple[Annotated[int, Field(ge=1)], ...], Field(min_length=1)]
    ) = "auto"
    n_harm: Annotated[int, Field(ge=3)] = 256
    n_safe: Annotated[int, Field(ge=3)] = 256
    held_out: Annotated[float, Field(gt=0, le=0.5)] = 0.2
    safe_tokens: Literal["all", "last"] = "all"
    protect_pivot: bool = False
    max_relative_update: Annotated[float, Field(gt=0)] = 0.5
    max_benign_change: Annotated[float, Field(gt=0)] = 0.1
    max_length: Annotated[int, Field(ge=8)] = 1024

    def check(self, corpus: Corpus, shape: Shape | None) -> None:
        """Refuse a corpus without enough prompts, and a layer or rank that the model does not have.

        Raises:
            DataError: A language lacks translations of harmful prompts, or benign prompts are missing.
            ConfigError: Says what does not fit.
        """
        pivot = {row.id for row in corpus.rows(corpus.pivot) if row.harmful}
        others = [language for language in corpus.languages if language != corpus.pivot]
        if not others:
            raise DataError(f"there is no training language besides the pivot {corpus.pivot!r}")
        for language in others:
            _enough(corpus, language, harmful=True, among=pivot)
        for language in corpus.languages if self.neuron_language == "union" else [corpus.pivot]:
            _enough(corpus, language, harmful=False)
        if shape:
            _fits(self.layer, self.rank, shape)

    def align(self, start: Checkpoint, corpus: Corpus, run: Run) -> Checkpoint:
        """Return the start model with an adapter that holds the edit.

        Raises:
            JobError: Activations are not finite, or no edit stays within the trust region.
        """
        from mlbench import models
        from mlbench.training import activations, edit

        self.check(corpus, None)
        sample = activations.draw(corpus, self.n_harm, self.n_safe, held_out=self.held_out, seed=run.seed)
        run.consume([row for rows in sample.values() for row in rows], answers=False)
        wanted = partial(self.wanted, pivot=corpus.pivot)
        loaded = models.load(start)
        chosen: list[Result] = []
        tried: list[Result] = []
        tokens = 0
        for layers in self.rounds(loaded.model):
            reading = activations.read(
                loaded, corpus, sample, layers, wanted, max_length=self.max_length, batch_size=run.training.micro_batch
            )
            tokens += reading.tokens
            results = [self.trial(loaded.model, layer, reading) for layer in layers]
            chosen.append(self.best(results))
            tried += results
            edit.add(loaded.model, chosen[-1].edits)
        run.record(tokens=tokens, **_facts(chosen, tried))
        return edit.save(start, [each for result in chosen for each in result.edits], self.rank, run)

    def rounds(self, model: nn.Module) -> list[list[int]]:
        """Return layers that compete with each other, one list per edited layer, front to back."""
        from mlbench.training import hidden

        if self.layer == "auto":
            depth = hidden.depth(model)
            first, last = (1, depth) if depth <= SHALLOW else (round(0.4 * depth), round(0.9 * depth))
            return [list(range(first, last + 1))]
        layers = self.layer if isinstance(self.layer, tuple) else (self.layer,)
        return [[layer] for layer in sorted({hidden.layer_index(layer, model) for layer in layers})]

    def wanted(self, group: Group, pivot: Language) -> Wanted:
        """Return what is kept of a group of prompts: units are selected and edits fitted on what is not held out."""
        from mlbench.training.activations import Wanted

        selects = not group.held and (group.language == pivot or self.neuron_language == "union")
        protected = not group.harmful or (self.protect_pivot and group.language == pivot and not group.held)
        return Wanted(
            pool=self.pool,
            signals=tuple(dict.fromkeys(self.signals.values())) if selects else (),
            signal_pool=self.neuron_pool,
            tokens=self.safe_tokens if protected else "none",
        )

    @property
    def signals(self) -> dict[str, Signal]:
        """Return the edited projections, and what the units of each are selected by."""
        edited: tuple[Literal["gate", "up"], ...] = ("gate", "up") if self.modules == "both" else (self.modules,)
        return {f"{name}_proj": "product" if self.signal == "product" else name for name in edited}

    def neurons(self, reading: Reading, layer: int, signal: Signal) -> Tensor:
        """Return S, the numbers of the units selected, (m,)."""
        import torch

        from mlbench.training.activations import Group

        found = []
        for group in reading.sample:
            benign = Group(group.language, False, False)
            if group.harmful and not group.held and reading.groups[group][layer].moments:
                one, other = (reading.groups[each][layer].moments[signal] for each in (group, benign))
                found.append(select(one, other, tau_mag=self.tau_mag, tau_stat=self.tau_stat))
        return torch.stack(found).any(0).nonzero()[:, 0]

    def targets(self, model: nn.Module, layer: int, reading: Reading) -> list[Target]:
        """Return what each projection of a layer is to change."""
        from mlbench.training import activations, edit

        mlp = activations.mlp(model, layer)
        names = {module: name for name, module in model.named_modules()}
        fit, held = (reading.pairs(layer, held=held) for held in (False, True))
        found = []
        for name, signal in self.signals.items():
            linear = getattr(mlp, name)
            units = self.neurons(reading, layer, signal)
            weight = linear.weight[units].detach().double().T
            bias = None if linear.bias is None else linear.bias[units].detach().double()
            # Of the two projections only the gate's has a nonlinearity.
            act = mlp.act_fn if self.target_space == "literal" and name == "gate_proj" else None
            gaps = [gap(pairs.low, pairs.pivot, weight, bias, act) for pairs in (fit, held)]
            found.append(edit.Target(names[linear], units, weight, *gaps))
        return found

    def trial(self, model: nn.Module, layer: int, reading: Reading) -> Result:
        """Return the edit of a layer, lambda raised until it stays within the trust region or too often."""
        from mlbench.training import edit

        targets = self.targets(model, layer, reading)
        low, benign = reading.pairs(layer, held=False).low, reading.benign[False][layer]
        # X_low^T X_low / N_h
        quadratic = low.T @ low / len(low)
        scale = getattr(quadratic.diagonal(), self.ridge_scale)().item()
        basis = None
        if self.variant == "hard":
            basis = edit.free_directions(benign.matrix, self.protected)
            quadratic = basis.T @ quadratic @ basis
        else:
            quadratic = quadratic + self.gamma / benign.rows * benign.matrix
        raised = 0
        while True:
            found = edit.factor(quadratic, self.ridge * 10**raised * scale)
            raised += found.raised
            edits = [_row_edit(target, low, found.lower, basis, self.rank) for target in targets]
            held = reading.pairs(layer, held=True).low, reading.benign[True][layer]
            result = edit.measure(layer, targets, edits, *held, ridge=self.ridge * 10**raised, raised=raised)
            if self.within(result) or raised >= RAISES:
                return result
            raised += 1

    def within(self, result: Result) -> bool:
        """Return whether an edit stays within the trust region."""
        return result.relative_update <= self.max_relative_update and result.benign_change <= self.max_benign_change

    def best(self, results: Sequence[Result]) -> Result:
        """Return the edit within the trust region that closes most of the gap; one that changes nothing comes last.

        Raises:
            JobError: None stays within the trust region.
        """
        if not (fitting := [result for result in results if self.within(result)]):
            raise JobError(
                f"no edit stays within max_relative_update = {self.max_relative_update} and max_benign_change = "
                f"{self.max_benign_change}, lambda raised {RAISES} times tenfold: {[each.facts for each in results]}"
            )
        return max(fitting, key=lambda result: (result.neurons > 0, result.gap_closed))


def _row_edit(target: Target, low: Tensor, lower: Tensor, basis: Tensor | None, rank: int) -> RowEdit:
    from mlbench.training.edit import RowEdit

    # G = X_low^T D / N_h, in the free directions where there is a basis of them
    cross = low.T @ target.fit / len(low)
    left, right = truncate(lower, cross if basis is None else basis.T @ cross, rank)
    left = left if basis is None else basis @ left
    return RowEdit(module=target.module, units=target.units, left=left, right=right)


def _facts(chosen: Sequence[Result], tried: Sequence[Result]) -> dict[str, float | str]:
    """Return what is recorded; of several edited layers the one that does worst counts."""
    units = {name: sum(result.units.get(name, 0) for result in chosen) for name in ("gate_proj", "up_proj")}
    return {
        "swe_layer": ", ".join(str(result.layer) for result in chosen),
        "swe_gap_closed": min(result.gap_closed for result in chosen),
        "swe_benign_change": max(result.benign_change for result in chosen),
        "swe_relative_update": max(result.relative_update for result in chosen),
        "swe_neurons": sum(units.values()),
        **{f"swe_{name}_neurons": count for name, count in units.items()},
        "swe_rank": max(each.left.shape[1] for result in chosen for each in result.edits),
        "swe_ridge": max(result.ridge for result in chosen),
        "swe_ridge_raised": max(result.raised for result in chosen),
        "swe_layers": json.dumps([result.facts for result in tried]),
    }


def _enough(corpus: Corpus, language: Language, *, harmful: bool, among: Container[str] | None = None) -> None:
    rows = [row for row in corpus.rows(language) if row.harmful == harmful and (among is None or row.id in among)]
    found = len({row.cluster for row in rows})
    if found < FEWEST:
        what = f"harmful prompts that are translations of one in {corpus.pivot!r}" if harmful else "benign prompts"
        raise DataError(f"{found} {what} in {language!r}, and sparse weight editing needs at least {FEWEST}")


def _fits(layer: object, rank: int, shape: Shape) -> None:
    for index in layer if isinstance(layer, tuple) else (layer,):
        if isinstance(index, int) and index > shape.layers:
            raise ConfigError(f"layer {index} is not a layer of this model, which has {shape.layers}")
    width = min(shape.hidden, shape.feed_forward)
    if rank > width:
        raise ConfigError(f"rank = {rank} is larger than the width of the model, {width}")


plugin: type[Method] = SWE
