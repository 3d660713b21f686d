"""MLC: multi-lingual consistency, an alignment loss in one language plus a rank-1 penalty over translations.

For one prompt in L languages, z_l is the unit vector of the projected hidden state at the last prompt token, and
sigma_1 >= ... >= sigma_L are the singular values of Z = [z_1 ... z_L]. They are all but sigma_1 zero when the
translations point in one direction.

    L_total = L_align + lambda * L_cons,   L_cons = - log [ exp(s_1 / tau) / sum_j exp(s_j / tau) ]

    s_j = sigma_j / stop_gradient(sigma_1)   as released ("detached_top", the default)
    s_j = sigma_j                            as printed ("none")

The two differ in effect: with tau = 0.2 and L = 10 the printed form has almost no gradient left once the mean cosine
exceeds 0.5. The loss is blind to the sign of a vector, and its floor depends on L; see `separation`.

Source: Bu et al., "Align Once, Benefit Multilingually", arXiv:2602.16660 (ICLR 2026). Code followed:
github.com/Yuyan-B/MLC, commit dbc51c8. Deviations from it:
- prompts come from a stream of their own, not from the preference rows of the same step;
- they pass through the layers up to the chosen one only, and never through the reference model;
- a prompt may lack translations (its L is smaller); the released code needs all languages in every row;
- the SFT path of the released code corrupts its prompt tokens under bfloat16 and is not reproduced.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

from mlbench.core import Checkpoint, Corpus, Example, Language, Method, Need, Run
from mlbench.corpus import answer_needs
from mlbench.errors import DataError

if TYPE_CHECKING:
    from torch import Tensor, nn

    from mlbench.models import Loaded
    from mlbench.training.side import Side, Terms

Group = Mapping[Language, Example]


def consistency_loss(
    states: Tensor, present: Tensor, *, temperature: float, scale: Literal["detached_top", "none"]
) -> Tensor:
    """Return the loss of each prompt, (prompts,), at most ln L.

    Args:
        states: (prompts, languages, dim), vectors of any length, float32 or wider; missing ones hold anything finite.
        present: (prompts, languages), whether there is a translation.
        temperature: tau.
        scale: "detached_top" divides by the largest singular value, as released; "none" as printed.
    """
    import torch

    values = _singular_values(states, present)
    # s_j = sigma_j / stop_gradient(sigma_1)
    scores = values / (values[:, :1].detach() + 1e-12) if scale == "detached_top" else values
    # A translation that is missing adds a zero to the spectrum, which must not count as a direction.
    directions = present.sum(-1, keepdim=True).clamp(max=values.shape[-1])
    beyond = torch.arange(values.shape[-1], device=values.device) >= directions
    # L_cons = - log softmax(s / tau)_1
    return -(scores / temperature).masked_fill(beyond, -torch.inf).log_softmax(-1)[:, 0]


def _singular_values(states: Tensor, present: Tensor) -> Tensor:
    import torch
    from torch.nn.functional import normalize

    units = normalize(states, dim=-1, eps=1e-12) * present[..., None]
    # Values only: their gradient u_j v_j^T is finite even where several of them coincide.
    values: Tensor = torch.linalg.svdvals(units)
    return values


def floor(languages: Tensor, *, temperature: float, scale: Literal["detached_top", "none"]) -> Tensor:
    """Return the loss of a prompt whose translations all point in one direction, for each number of languages."""
    # sigma = (sqrt(L), 0, ..., 0):  ln(1 + (L - 1) exp(-s_1 / tau))
    top = languages.new_ones(languages.shape) if scale == "detached_top" else languages.sqrt()
    return ((languages - 1) * (-top / temperature).exp()).log1p()


def separation(states: Tensor, present: Tensor) -> dict[str, float]:
    """Return how far translations agree and prompts differ; every value in [-1, 1].

    Returns:
        `cosine`: mean over prompts of the mean cosine between two translations (signed, unlike the loss);
        `top_share`: mean of sigma_1^2 / L, the share of the spectrum in one direction;
        `between`: mean cosine between different prompts' mean directions; near 1 means that all prompts have
        collapsed onto one direction, which shows as over-refusal.
    """
    import torch
    from torch.nn.functional import normalize

    units = normalize(states.detach(), dim=-1) * present[..., None]
    count = present.sum(-1)
    sums = units.sum(1)
    # |sum_l z_l|^2 = L + sum_(l != m) z_l . z_m
    cosine = (sums.square().sum(-1) - count) / (count * (count - 1))
    share = torch.linalg.svdvals(units)[:, 0].square() / count
    centres = normalize(sums, dim=-1)
    prompts = len(centres)
    between = (centres.sum(0).square().sum() - prompts) / max(1, prompts * (prompts - 1))
    return {"cosine": cosine.mean().item(), "top_share": share.mean().item(), "between": between.item()}


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class MLC:
    """Multi-lingual consistency. Defaults are the released configuration unless an attribute says otherwise.

    Attributes:
        base: The alignment loss in the pivot language. Released configuration: DPO.
        weight: lambda. 0.8 is released; the paper finds that utility starts to suffer from there on.
        temperature: tau. 0.2 is the released default.
        scale: "detached_top" is what the released code computes, "none" what the paper prints.
        layer: "last" (released: the entry after the final norm), an index, or a share of the depth. The paper finds
            a better balance of safety and utility in the middle (0.5).
        token: Released: the last token of the prompt, generation prefix included, so the same token in every language.
        projection: Released: a linear map trained along. "random" freezes it, "none" leaves it out.
        projection_dim: 512 as released.
        projection_learning_rate: 6e-7 is the released rate of model and projection alike, at which the projection
            stays near its random start. At the larger rates of LoRA it could satisfy the loss all by itself.
        pivot_stop_gradient: Ours: the pivot is a fixed target for the others. Not in the paper.
        languages_per_step: Ours: 0 takes every language (the paper); n takes the pivot and n others, drawn per prompt.
        every: The penalty is applied on each n-th step; 2 is released.
        prompts_per_step: 0 takes the batch size, as in the released code, where every pair brings its prompt.
        normalise: Ours: divide by ln L, so that the penalty weighs the same whatever the number of languages. The
            paper has one L throughout and does not divide.
        languages: Languages of the preference rows: "pivot" (the paper), "all", or codes.
        benign: Whether harmless rows and prompts take part.
        beta: Of DPO; 0.1 is released.
        sft_weight: Weight of a likelihood term in DPO; 0 is released.
    """

    paper: ClassVar[str] = "arXiv:2602.16660"
    reported: ClassVar[tuple[Mapping[str, str | float], ...]] = tuple(
        {"source": source, "model": model, "metric": metric, "method": method, "value": value}
        for source, model, metric, method, value in (
            ("PKU-SafeRLHF", "Qwen2.5-7B-Instruct", "safe rate, 10 languages, %", "none", 59.6),
            ("PKU-SafeRLHF", "Qwen2.5-7B-Instruct", "safe rate, 10 languages, %", "dpo", 66.4),
            ("PKU-SafeRLHF", "Qwen2.5-7B-Instruct", "safe rate, 10 languages, %", "mpo", 65.5),
            ("PKU-SafeRLHF", "Qwen2.5-7B-Instruct", "safe rate, 10 languages, %", "mlc", 95.9),
            ("PKU-SafeRLHF", "Gemma-2-9B-it", "safe rate, 10 languages, %", "mlc", 96.8),
            ("MultiJail", "not named", "ASR, 5 training languages, %", "dpo", 10.5),
            ("MultiJail", "not named", "ASR, 5 training languages, %", "mlc", 0.7),
            ("MultiJail", "not named", "ASR, 5 held-out languages, %", "dpo", 3.6),
            ("MultiJail", "not named", "ASR, 5 held-out languages, %", "mlc", 0.5),
        )
    )

    base: Literal["dpo", "sft"] = "dpo"
    weight: Annotated[float, Field(ge=0)] = 0.8
    temperature: Annotated[float, Field(gt=0)] = 0.2
    scale: Literal["detached_top", "none"] = "detached_top"
    layer: Literal["last"] | Annotated[int, Field(ge=1)] | Annotated[float, Field(gt=0, lt=1)] = "last"
    token: Literal["last_prompt", "mean"] = "last_prompt"
    projection: Literal["trained", "random", "none"] = "trained"
    projection_dim: Annotated[int, Field(ge=2)] = 512
    projection_learning_rate: Annotated[float, Field(ge=0)] = 6e-7
    pivot_stop_gradient: bool = False
    languages_per_step: Annotated[int, Field(ge=0)] = 0
    every: Annotated[int, Field(ge=1)] = 2
    prompts_per_step: Annotated[int, Field(ge=0)] = 0
    normalise: bool = False
    languages: Literal["pivot", "all"] | tuple[Language, ...] = "pivot"
    benign: bool = True
    beta: Annotated[float, Field(gt=0)] = 0.1
    sft_weight: Annotated[float, Field(ge=0)] = 0.0

    @property
    def needs(self) -> frozenset[Need]:
        """Return the pivot's preferences and the other languages' prompts; their answers only if it trains on them."""
        return answer_needs(self.languages, benign=self.benign) | {"parallel_prompts"}

    def align(self, start: Checkpoint, corpus: Corpus, run: Run) -> Checkpoint:
        """Return the model trained with the base loss and the consistency penalty."""
        from mlbench import training

        rows = training.preferences(corpus, self.languages, benign=self.benign, rejected=self.base == "dpo")
        groups = self.groups(corpus)

        def penalty(loaded: Loaded) -> Side:
            return self.side(loaded, groups, corpus.pivot, run)

        if self.base == "sft":
            return training.sft(start, rows, run, side=penalty)
        return training.dpo(start, rows, run, beta=self.beta, sft_weight=self.sft_weight, side=penalty)

    def groups(self, corpus: Corpus) -> tuple[Group, ...]:
        """Return the prompts that exist in the pivot language and in at least one more.

        Raises:
            DataError: A training language has no such prompt.
        """
        groups = [group for group in corpus.parallel() if corpus.pivot in group and len(group) > 1]
        groups = [group for group in groups if self.benign or group[corpus.pivot].harmful]
        for language in corpus.languages:
            if not any(language in group for group in groups):
                raise DataError(
                    f"no prompt in {language!r} is a translation of one in {corpus.pivot!r}",
                    hint="rows that are translations of each other share their `id`",
                )
        return tuple(groups)

    def batches(self, groups: Sequence[Group], pivot: Language, run: Run) -> list[list[tuple[Example, ...]]]:
        """Return the prompts of each step that has the penalty: translations of one prompt, the pivot first."""
        from mlbench.training import fit

        size = self.prompts_per_step or run.training.batch_size
        steps = range(0, run.training.steps, self.every)
        order = fit.draw(len(groups), len(steps) * size, run.seed)
        chooser = random.Random(run.seed)
        picked = [self._translations(groups[index], pivot, chooser) for index in order]
        return [picked[at : at + size] for at in range(0, len(picked), size)]

    def _translations(self, group: Group, pivot: Language, chooser: random.Random) -> tuple[Example, ...]:
        others = [language for language in group if language != pivot]
        if self.languages_per_step:
            others = chooser.sample(others, min(self.languages_per_step, len(others)))
        return tuple(group[language] for language in (pivot, *others))

    def side(self, loaded: Loaded, groups: Sequence[Group], pivot: Language, run: Run) -> Side:
        """Return the penalty for a start model, with its prompts laid out and encoded."""
        from mlbench.training import fit, hidden
        from mlbench.training.side import Side

        batches = self.batches(groups, pivot, run)
        rows = tuple(dict.fromkeys(row for batch in batches for prompt in batch for row in prompt))
        run.consume(rows, answers=False)
        tokens = dict(zip(rows, fit.encode_prompts(loaded, rows, run.training.max_length), strict=True))
        layer = hidden.layer_index(self.layer, loaded.model)
        projection = self._projection(loaded, run.seed)
        read = hidden.last_token if self.token == "last_prompt" else hidden.mean_token

        def states(model: nn.Module, prompts: Sequence[tuple[Example, ...]]) -> tuple[Tensor, int]:
            flat = [tokens[row] for prompt in prompts for row in prompt]
            block = hidden.pad(flat, loaded.tokenizer.pad_token_id, next(model.parameters()).device)
            return read(hidden.hidden_states(model, block, layer), block.mask), sum(map(len, flat))

        def loss(model: nn.Module, prompts: Sequence[tuple[Example, ...]]) -> Terms:
            found, count = states(model, prompts)
            return self.terms(found, [len(prompt) for prompt in prompts], projection, count)

        return Side(
            name="mlc",
            weight=self.weight,
            items=lambda step: () if step % self.every else batches[step // self.every],
            loss=loss,
            extra=projection,
            extra_learning_rate=self.projection_learning_rate,
        )

    def _projection(self, loaded: Loaded, seed: int) -> nn.Linear | None:
        import torch

        if self.projection == "none":
            return None
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            made = torch.nn.Linear(loaded.model.config.get_text_config().hidden_size, self.projection_dim)
        return made.requires_grad_(self.projection == "trained")

    def terms(self, found: Tensor, sizes: Sequence[int], projection: nn.Linear | None, tokens: int) -> Terms:
        """Return the loss and the monitor of prompts whose states lie one after the other.

        Args:
            found: (rows, dim), the translations of the first prompt, then of the second, ...
            sizes: Number of translations of each prompt.
            projection: W, or None.
            tokens: Tokens read, for the record.
        """
        import torch

        from mlbench.training.side import Terms

        # In float32 whatever the trainer's precision, as in the released code.
        with torch.autocast(found.device.type, enabled=False):
            found = found.float()
            count = torch.tensor(sizes, device=found.device)
            present = torch.arange(max(sizes), device=found.device) < count[:, None]
            raw = found.new_zeros(*present.shape, found.shape[-1]).masked_scatter(present[..., None], found)
            vectors = raw if projection is None else projection(raw)
            if self.pivot_stop_gradient:
                vectors = torch.cat([vectors[:, :1].detach(), vectors[:, 1:]], dim=1)
            each = consistency_loss(vectors, present, temperature=self.temperature, scale=self.scale)
            ceiling = count.float().log()
            least = floor(count.float(), temperature=self.temperature, scale=self.scale)
            normalised = (each.detach() - least) / (ceiling - least)
        # Agreement of the states themselves: a projection that satisfies the loss alone leaves it where it was.
        monitor = {"normalised": normalised.mean().item(), **separation(raw, present)}
        return Terms((each / ceiling if self.normalise else each).mean(), monitor, tokens)


plugin: type[Method] = MLC
