"""MPO: multilingual reward gap optimisation, target languages learn how far the pivot tells safe from unsafe answers.

One row is a prompt with a chosen and a rejected answer in a target language t and in the pivot d ("dominant").

    RG^l = log pi(y_w^l | x^l) / |y_w^l|  -  log pi(y_l^l | x^l) / |y_l^l|
    L    = (beta * RG^t(theta) - RG^d(ref))^2  +  w * || h^d(theta) - h^d(ref) ||^2

ref is the start model and h^d the hidden state of the pivot's dialogues, which the second term keeps where it was. The
first term ends at RG^t = RG^d / beta, so beta = 1.5 asks for two thirds of the pivot's gap. It is two-sided: a target
language that tells the answers apart better than the pivot is pulled back. Where RG^d <= 0 the pivot itself prefers
the unsafe answer and hands that on; the share of such rows is recorded as `pivot_gap_negative`.

Source: Zhao et al., "MPO: Multilingual Safety Alignment via Reward Gap Optimization", arXiv:2505.16869 (ACL 2025). Code
followed: github.com/circle-hit/MPO, commit 7d2a9b0. The release has English as the pivot of Llama and Gemma, Chinese as
that of Qwen; in a shootout a model may have its own `pivot`. Paper and code differ in h^d, see `retain`. Deviations:
- RG^d and h^d of the start model are computed once per pivot row; the released code asks a second model at each step;
- the pivot passes through the model without its head, once per step and pivot row however many targets share it;
- a row that is too long is refused, the released code cuts it at 1,024 tokens;
- the second term is computed in float32, in the released code in bfloat16;
- the end of turn and the padding token are those of the model's own tokenizer and chat template;
- budget and batch are the shootout's; the released code has one row per device on an unstated number of devices.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal, NamedTuple

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

from mlbench.core import Checkpoint, Corpus, Example, Language, Method, Need, Preset, Run, Shape
from mlbench.corpus import answer_needs
from mlbench.errors import ConfigError, DataError

if TYPE_CHECKING:
    from torch import Tensor, nn

    from mlbench.models import Loaded
    from mlbench.training.answers import Dialogue, LogProbs
    from mlbench.training.objective import Objective
    from mlbench.training.side import MakeSide, Terms

Retain = Literal["masked_mean", "official", "paper", "none"]

PAD_MULTIPLE = 8
"""The released code pads to a multiple of this."""


class Pair(NamedTuple):
    """One prompt with its preferred and with its rejected answer."""

    chosen: Dialogue
    rejected: Dialogue


class Anchor(NamedTuple):
    """What the start model makes of the pivot's rows.

    Attributes:
        pairs: The rows, each once.
        gaps: (pairs,), RG^d(ref).
        states: (pairs, 2, dim), h^d(ref); None where they are not kept.
    """

    pairs: Sequence[Pair]
    gaps: Tensor
    states: Tensor | None


def reward_gap(found: LogProbs, *, length_normalised: bool = True) -> Tensor:
    """Return RG of each pair, (pairs,).

    Args:
        found: Of the chosen and the rejected answer of the first pair, then of the second, ...
        length_normalised: Whether it is a difference of means over tokens, or of sums.
    """
    scores = found.means if length_normalised else found.sums
    chosen, rejected = scores.view(-1, 2).unbind(-1)
    return chosen - rejected


def gap_loss(target_gap: Tensor, pivot_gap: Tensor, *, beta: float, one_sided: bool = False) -> Tensor:
    """Return (beta * RG^t - RG^d)^2 of each pair, (pairs,); `one_sided` gives 0 where beta * RG^t > RG^d."""
    short = pivot_gap - beta * target_gap
    return (short.clamp(min=0) if one_sided else short).square()


def padded_width(lengths: Tensor) -> Tensor:
    """Return to how many tokens the released code pads each pair, which is a batch of its own, (pairs,).

    Args:
        lengths: (pairs, 2), tokens of the two dialogues.
    """
    return (lengths.amax(-1) + PAD_MULTIPLE - 1) // PAD_MULTIPLE * PAD_MULTIPLE


def positions(lengths: Tensor, width: int, retain: Retain) -> Tensor:
    """Return which positions of dialogues padded on the right h averages, (pairs, 2, width), boolean.

    Args:
        lengths: (pairs, 2), tokens of the two dialogues.
        width: Tokens with padding, at least the largest `padded_width`.
        retain: "masked_mean" takes tokens, "official" also the padding up to `padded_width`, "paper" the last token.
    """
    import torch

    places = torch.arange(width, device=lengths.device)
    if retain == "paper":
        return places == lengths[..., None] - 1
    ends = padded_width(lengths)[:, None].expand_as(lengths) if retain == "official" else lengths
    return places < ends[..., None]


def retain_loss(states: Tensor, before: Tensor, retain: Retain) -> Tensor:
    """Return how far the states of each pair have moved, (pairs,).

    Args:
        states: (pairs, 2, dim), h(theta).
        before: (pairs, 2, dim), h(ref).
        retain: "paper" sums the squares over the dimensions, everything else averages them.
    """
    squares = (states - before).square()
    return (squares.sum(-1) if retain == "paper" else squares.mean(-1)).mean(-1)


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class MPO:
    """Multilingual reward gap optimisation. Defaults are the released configuration of Llama 3.1 except `retain`.

    Attributes:
        beta: Factor of the target's gap. 1.0 is released for Llama 3.1, 1.5 for Gemma 2 and Qwen 2.5.
        retain_weight: w; 1 in paper and code.
        retain: What h^d is, of both the chosen and the rejected dialogue. "masked_mean": mean over tokens; the squares
            are averaged over dimensions. "official": as released, the mean takes in the padding that a batch of one row
            gets. "paper": the last token (end of turn included), squares summed over dimensions, which weighs hidden
            size times more. "none": no second term. The default is the released form without its accident of padding.
        retain_layer: "last" (released: after the final norm), an index, or a share of the depth.
        length_normalised: Whether RG is per token, as in paper and code.
        one_sided: Ours: pull up only, leave gaps above the pivot's alone.
        benign: Ours: train on harmless rows too (helpful answer chosen, refusal rejected). The paper has harmful ones
            only, after which the model organism refuses most harmless requests in the target languages as well.
        languages: Target languages: "all" (every training language but the pivot, the paper) or codes.
    """

    paper: ClassVar[str] = "arXiv:2505.16869"
    fidelity: ClassVar[str] = "released code"
    citation: ClassVar[str] = """@inproceedings{zhao2025mpo,
  title = {{MPO}: Multilingual Safety Alignment via Reward Gap Optimization},
  author = {Zhao, Weixiang and Hu, Yulin and Deng, Yang and Wu, Tongtong and Zhang, Wenxuan and Guo, Jiahe and
            Zhang, An and Zhao, Yanyan and Qin, Bing and Chua, Tat-Seng and Liu, Ting},
  booktitle = {Proceedings of the 63rd Annual Meeting of the Association for Computational Linguistics},
  pages = {23564--23587},
  year = {2025},
}"""
    # The paper's own table was not at hand: of it only the untrained model, besides what later papers measured.
    reported: ClassVar[tuple[Mapping[str, str | float], ...]] = tuple(
        {"source": source, "model": model, "metric": metric, "method": method, "value": value}
        for source, model, metric, values in (
            (
                "MPO paper, second-hand",
                "Llama-3.1-8B-Instruct, untrained",
                "MultiJail ASR, %",
                {"en": 14.6, "zh": 20.3, "ko": 52.4, "ar": 16.8, "bn": 49.5, "sw": 37.8, "mean of the 6": 31.9},
            ),
            ("ACTR (2026)", "Qwen3-8B", "AdvBench-X ASR, en zh ko bn, %", {"none": 7.79, "dpo": 7.98, "mpo": 2.30}),
            ("ACTR (2026)", "Qwen3-8B", "MultiJail ASR, en zh ko bn, %", {"none": 12.94, "dpo": 8.14, "mpo": 3.49}),
            (
                "ACTR (2026)",
                "Gemma4-12B-it",
                "AdvBench-X ASR, en zh ko bn, %",
                {"none": 1.97, "dpo": 1.59, "mpo": 1.35},
            ),
            ("ACTR (2026)", "Gemma4-12B-it", "MultiJail ASR, en zh ko bn, %", {"none": 7.70, "dpo": 4.05, "mpo": 1.90}),
            ("arXiv:2602.01283, second-hand", "Gemma-2-9B-it", "MultiJail ASR, %", {"mpo": 7.22}),
            ("arXiv:2602.01283, second-hand", "Llama-3.1-8B-Instruct", "MultiJail ASR, %", {"mpo": 5.08}),
            (
                "arXiv:2602.16660, second-hand",
                "Qwen2.5-7B-Instruct",
                "PKU-SafeRLHF safe rate, 10 languages, %",
                {"none": 59.6, "dpo": 66.4, "mpo": 65.5},
            ),
        )
        for method, value in values.items()
    )
    presets: ClassVar[Mapping[str, Preset]] = {
        name: Preset(
            note=(
                f"Released for {model}: all weights, 600 rows twice. Its batch is one row per device, the number of "
                "devices is not stated; 150 steps of 8 rows assume eight."
            ),
            fields={"beta": beta, "retain": "official"},
            training={
                "steps": 150,
                "batch_size": 8,
                "learning_rate": rate,
                "schedule": "cosine",
                "warmup": 0.1,
                "weight_decay": 0.0,
                "max_grad_norm": 1.0,
                "lora_rank": 0,
            },
        )
        for name, model, beta, rate in (
            ("llama3.1", "Llama-3.1-8B-Instruct", 1.0, 6e-7),
            ("gemma2", "gemma-2-9b-it", 1.5, 4e-7),
            ("qwen2.5", "Qwen2.5-7B-Instruct (pivot: Chinese)", 1.5, 6e-7),
        )
    } | {
        "paper-form": Preset(note="The second term as the paper states it.", fields={"retain": "paper"}),
        "one-sided": Preset(note="Ours: no pull on gaps above the pivot's.", fields={"one_sided": True}),
    }

    beta: Annotated[float, Field(gt=0)] = 1.0
    retain_weight: Annotated[float, Field(ge=0)] = 1.0
    retain: Retain = "masked_mean"
    retain_layer: Literal["last"] | Annotated[int, Field(ge=1)] | Annotated[float, Field(gt=0, lt=1)] = "last"
    length_normalised: bool = True
    one_sided: bool = False
    benign: bool = False
    languages: Literal["all"] | tuple[Language, ...] = "all"

    @property
    def needs(self) -> frozenset[Need]:
        """Return the preferences of the pivot and of the other languages."""
        return answer_needs("all", benign=self.benign)

    def check(self, corpus: Corpus, shape: Shape | None) -> None:
        """Refuse languages that cannot be trained on and a layer that the model does not have.

        Raises:
            ConfigError: A language is none of the corpus or its pivot, or there is no such layer.
            DataError: A language has no preferences on prompts that the pivot has preferences on.
        """
        self.targets(corpus)
        if shape and isinstance(self.retain_layer, int) and self.retain_layer > shape.layers:
            allowed = ("last", f"1 to {shape.layers}", "a fraction of the depth between 0 and 1")
            raise ConfigError(
                f"retain_layer = {self.retain_layer} is beyond the model, which has {shape.layers} layers",
                allowed=allowed,
            )

    def targets(self, corpus: Corpus) -> tuple[Example, ...]:
        """Return the rows to train on, language by language: those with both answers whose pivot row has both.

        Raises:
            ConfigError: A language is none of the corpus or its pivot.
            DataError: A language has no such row, or there is no language.
        """
        others = tuple(language for language in corpus.languages if language != corpus.pivot)
        languages = others if self.languages == "all" else self.languages
        if not languages:
            raise DataError(f"there is no target language besides the pivot {corpus.pivot!r}")
        for language in languages:
            if language not in others:
                reason = "is the pivot" if language == corpus.pivot else "is not in the training corpus"
                raise ConfigError(f"target language {language!r} {reason}", allowed=others)
        pivots = {row.id for row in self._answered(corpus, corpus.pivot)}
        found: list[Example] = []
        for language in languages:
            rows = [row for row in self._answered(corpus, language) if row.id in pivots]
            if not rows:
                raise DataError(
                    f"no prompt has chosen and rejected answers both in {language!r} and in {corpus.pivot!r}",
                    hint="rows that are translations of each other share their `id`",
                )
            found += rows
        return tuple(found)

    def _answered(self, corpus: Corpus, language: Language) -> list[Example]:
        rows = corpus.rows(language)
        return [row for row in rows if row.chosen and row.rejected and (row.harmful or self.benign)]

    def align(self, start: Checkpoint, corpus: Corpus, run: Run, side: MakeSide | None = None) -> Checkpoint:
        """Return the model whose target languages have the pivot's reward gap."""
        from mlbench import training

        pivots = {row.id: row for row in corpus.rows(corpus.pivot)}

        def make(loaded: Loaded, rows: Sequence[Example]) -> Objective:
            return self.objective(loaded, rows, [pivots[row.id] for row in rows], run)

        return training.train(start, self.targets(corpus), run, make, answers=True, side=side)

    def objective(self, loaded: Loaded, rows: Sequence[Example], pivots: Sequence[Example], run: Run) -> Objective:
        """Return the loss over rows, each with its row in the pivot language."""
        from mlbench.training import answers, hidden
        from mlbench.training.side import Terms

        pad_id = loaded.tokenizer.pad_token_id
        layer = hidden.layer_index(self.retain_layer, loaded.model)
        targets = _encode(loaded, rows, run.training.max_length)
        distinct = tuple(dict.fromkeys(pivots))
        anchor = self._anchor(loaded, distinct, layer, run)
        place = {row: at for at, row in enumerate(distinct)}
        anchored = [place[row] for row in pivots]

        def loss(model: nn.Module, numbers: Sequence[int], step: int) -> Terms:
            drawn = [targets[number] for number in numbers]
            mine = [anchored[number] for number in numbers]
            found = answers.log_probs(model, _flat(drawn), pad_id)
            target = reward_gap(found, length_normalised=self.length_normalised)
            pivot = anchor.gaps[mine].to(target.device)
            gap = gap_loss(target, pivot, beta=self.beta, one_sided=self.one_sided).mean()
            values = {"target_gap": target.mean().item(), "pivot_gap": pivot.mean().item(), "gap_loss": gap.item()}
            # L = L1 + w * L2
            total, tokens = gap, _count(drawn)
            if anchor.states is not None:
                kept = self._moved(model, anchor, mine, layer, pad_id)
                total = gap + self.retain_weight * kept
                values["retain_loss"] = kept.item()
                tokens += _count([anchor.pairs[at] for at in dict.fromkeys(mine)])
            return Terms(total, {f"mpo/{name}": value for name, value in values.items()}, tokens)

        return loss

    def _anchor(self, loaded: Loaded, pivots: Sequence[Example], layer: int, run: Run) -> Anchor:
        """Return what the start model makes of the pivot's rows, and record how far it tells their answers apart."""
        import torch

        from mlbench.training import answers

        run.consume(pivots, answers=True)
        pairs = _encode(loaded, pivots, run.training.max_length)
        found = answers.frozen_log_probs(loaded, _flat(pairs))
        gaps = reward_gap(found, length_normalised=self.length_normalised)
        run.record(pivot_gap=gaps.mean().item(), pivot_gap_negative=(gaps <= 0).float().mean().item())
        if self.retain == "none":
            return Anchor(pairs, gaps, None)
        pad_id = loaded.tokenizer.pad_token_id
        parts = [pairs[at : at + answers.BATCH] for at in range(0, len(pairs), answers.BATCH)]
        with torch.no_grad():
            states = [pooled_states(loaded.model, part, layer, pad_id, self.retain) for part in parts]
        return Anchor(pairs, gaps, torch.cat(states))

    def _moved(self, model: nn.Module, anchor: Anchor, mine: Sequence[int], layer: int, pad_id: int) -> Tensor:
        """Return L2 of a micro-batch; targets that share a pivot row share its forward pass."""
        assert anchor.states is not None
        once = list(dict.fromkeys(mine))
        states = pooled_states(model, [anchor.pairs[at] for at in once], layer, pad_id, self.retain)
        each = retain_loss(states, anchor.states[once].to(states.device), self.retain)
        return each[[once.index(at) for at in mine]].mean()


def pooled_states(model: nn.Module, pairs: Sequence[Pair], layer: int, pad_id: int, retain: Retain) -> Tensor:
    """Return h of each pair's two dialogues, (pairs, 2, dim), float32, with gradient.

    The value does not depend on the other pairs: padding beyond what a pair gets in a batch of its own is not read.
    """
    import torch

    from mlbench.training import hidden

    device = next(model.parameters()).device
    rows = [[*each.prompt, *each.answer] for each in _flat(pairs)]
    lengths = torch.tensor([len(row) for row in rows], device=device)
    width = int(padded_width(lengths.view(-1, 2)).max())
    ids = torch.tensor([[*row, *[pad_id] * (width - len(row))] for row in rows], device=device)
    mask = (torch.arange(width, device=device) < lengths[:, None]).long()
    states = hidden.hidden_states(model, hidden.Padded(ids, mask), layer).float()
    read = positions(lengths.view(-1, 2), width, retain).flatten(0, 1)
    return hidden.mean_token(states, read).view(len(pairs), 2, -1)


def _encode(loaded: Loaded, rows: Sequence[Example], limit: int) -> list[Pair]:
    from mlbench.training import answers

    chosen = answers.encode(loaded, rows, [row.chosen or "" for row in rows], limit)
    rejected = answers.encode(loaded, rows, [row.rejected or "" for row in rows], limit)
    return [Pair(*pair) for pair in zip(chosen, rejected, strict=True)]


def _flat(pairs: Sequence[Pair]) -> list[Dialogue]:
    return list(chain.from_iterable(pairs))


def _count(pairs: Sequence[Pair]) -> int:
    return sum(len(each.prompt) + len(each.answer) for each in _flat(pairs))


plugin: type[Method] = MPO
