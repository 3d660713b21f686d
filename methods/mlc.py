"""MLC: multi-lingual consistency, an alignment loss in one language plus a rank-1 penalty over translations.

For one prompt in K languages, z_l is the unit vector of the projected hidden state at the last prompt token, and
sigma_1 >= ... >= sigma_K are the singular values of Z = [z_1 ... z_K]. They are all but sigma_1 zero when the
translations point in one direction.

    L = L_base + lambda * (L_cons + mu * L_sep),   L_cons = - log [ exp(s_1 / tau) / sum_j exp(s_j / tau) ]

    s_j = sigma_j / stop_gradient(sigma_1)   as released (scale "detached_top", the default)
    s_j = sigma_j                            as printed (scale "none")

    L_cons = 1 - 2 / (K (K - 1)) * sum_(l < m) z_l . z_m      the ablation of the paper (form "cosine")
    L_sep  = - log [ exp(1 / tau_2) / sum_n exp(c . c_n / tau_2) ],   c = sum_l z_l / |sum_l z_l|

The two scales differ in effect: with tau = 0.2 and K = 10 the printed one has almost no gradient left once the mean
cosine exceeds 0.5. The rank-1 form is blind to the sign of a vector, and its floor depends on K. L_sep is off by
default: the sum runs over the prompts of a micro-batch, a prompt drawn twice counting once.

Source: Bu et al., "Align Once, Benefit Multilingually", arXiv:2602.16660 (ICLR 2026). Code followed:
github.com/Yuyan-B/MLC, commit dbc51c8. Deviations from it:
- L_base is that of any gradient method, with that method's own data;
- prompts come from a stream of their own, not from the preference rows of the same step;
- they pass through the layers up to the chosen one only, and never through the reference model;
- a prompt may lack translations (its K is smaller); the released code needs all languages in every row;
- the SFT path of the released code corrupts its prompt tokens under bfloat16 and is not reproduced.
Not of the paper: `layer: auto`, the rule of LASA (arXiv:2604.12710), and L_sep, the instance term of PMRL
(arXiv:2507.17343) with the mean direction c in place of its leading singular vector, whose sign is arbitrary.
"""

from __future__ import annotations

import dataclasses
import inspect
import random
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import ConfigDict, Field, ValidationError, field_validator, model_validator
from pydantic.dataclasses import dataclass

from mlbench import plugins
from mlbench.core import Checkpoint, Corpus, Example, Fidelity, Language, Method, Need, Preset, Run, Shape
from mlbench.corpus import view
from mlbench.errors import ConfigError, DataError, PluginError, nearest

if TYPE_CHECKING:
    from torch import Tensor, nn

    from mlbench.models import Loaded
    from mlbench.training.side import Side, Terms

Group = Mapping[Language, Example]
Scale = Literal["detached_top", "none"]
Translations = tuple[Example, ...]
"""One prompt in several languages, the pivot first."""


def consistency_loss(states: Tensor, present: Tensor, *, temperature: float, scale: Scale) -> Tensor:
    """Return the rank-1 loss of each prompt, (prompts,), at most ln K.

    Args:
        states: (prompts, languages, dim), vectors of any length, float32 or wider; missing ones hold anything finite.
        present: (prompts, languages), whether there is a translation.
        temperature: tau.
        scale: "detached_top" divides by the largest singular value, as released; "none" as printed.
    """
    import torch

    from mlbench.training import geometry

    values = geometry.singular_values(geometry.unit_vectors(states, present))
    # s_j = sigma_j / stop_gradient(sigma_1)
    scores = values / (values[:, :1].detach() + 1e-12) if scale == "detached_top" else values
    # A translation that is missing adds a zero to the spectrum, which must not count as a direction.
    directions = present.sum(-1, keepdim=True).clamp(max=values.shape[-1])
    beyond = torch.arange(values.shape[-1], device=values.device) >= directions
    # L_cons = - log softmax(s / tau)_1
    return -(scores / temperature).masked_fill(beyond, -torch.inf).log_softmax(-1)[:, 0]


def floor(languages: Tensor, *, temperature: float, scale: Scale) -> Tensor:
    """Return the rank-1 loss of translations that all point in one direction, for each number of languages."""
    # sigma = (sqrt(K), 0, ..., 0):  ln(1 + (K - 1) exp(-s_1 / tau))
    top = languages.new_ones(languages.shape) if scale == "detached_top" else languages.sqrt()
    return ((languages - 1) * (-top / temperature).exp()).log1p()


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class MLC:
    """Multi-lingual consistency. Defaults are the released configuration unless an attribute says otherwise.

    Attributes:
        base: The method whose loss is L_base, any one that trains by gradients. Released configuration: DPO.
        base_with: The base's own fields, e.g. {beta: 0.1}, the released value and the default of DPO.
        weight: lambda. 0.8 is released; the paper finds that utility starts to suffer from there on.
        form: "rank1" is the paper's; "cosine" its ablation, which costs more utility there.
        temperature: tau of the rank-1 form. 0.2 is the released default.
        scale: Of the rank-1 form: "detached_top" is what the released code computes, "none" what the paper prints.
        layer: "last" (released: the entry after the final norm), an index, or a share of the depth. The paper finds
            a better balance of safety and utility in the middle (0.5). Not in the paper: "auto" takes the layer
            whose states cluster by meaning rather than by language, judged before the training on up to 64 prompts;
            the penalty does not draw these where at least as many others are left in every language.
        token: Released: the last token of the prompt, generation prefix included, so the same token in every language.
        projection: Released: a linear map trained along. "random" freezes it, "none" leaves it out.
        projection_dim: 512 as released.
        projection_learning_rate: 6e-7 is the released rate of model and projection alike, at which the projection
            stays near its random start. At the larger rates of LoRA it could satisfy the loss all by itself.
        pivot_stop_gradient: Ours: the pivot is a fixed target for the others. Not in the paper.
        languages_per_step: Ours: 0 takes every language (the paper); n takes the pivot and n others, drawn per prompt.
        every: The penalty is applied on each n-th step; 2 is released.
        prompts_per_step: 0 takes the batch size, as in the released code, where every pair brings its prompt.
        normalise: Ours: divide the rank-1 form by ln K, so that the penalty weighs the same whatever the number of
            languages. The paper has one K throughout and does not divide.
        separation_weight: mu. Ours: 0 leaves L_sep out, as the paper does; PMRL adds it with 1.
        separation_temperature: tau_2, 0.1 in PMRL.
        benign: Whether harmless prompts take part in the penalty; what the base trains on is up to the base.
    """

    paper: ClassVar[str] = "arXiv:2602.16660"
    fidelity: ClassVar[Fidelity] = "released code"
    presets: ClassVar[Mapping[str, Preset]] = {
        "released": Preset(
            note="github.com/Yuyan-B/MLC, commit dbc51c8: both configurations; 3 epochs of 2,835 prompts at batch 32",
            fields={
                "base": "dpo", "base_with": {"loss": "sigmoid", "beta": 0.1, "sft_weight": 0.0},
                "weight": 0.8, "temperature": 0.2, "scale": "detached_top", "layer": "last", "every": 2,
                "projection": "trained", "projection_dim": 512, "projection_learning_rate": 6e-7,
            },
            training={
                "learning_rate": 6e-7, "schedule": "cosine", "warmup": 0.1, "steps": 267, "batch_size": 32,
                "lora_rank": 0, "max_length": 1024,
            },
        ),
        "paper-form": Preset(note="the loss as the paper prints it", fields={"scale": "none"}),
        "middle": Preset(note="the layer that the paper's ablation recommends", fields={"layer": 0.5}),
        "no-projection": Preset(note="ours: the states themselves", fields={"projection": "none"}),
        "k2": Preset(note="ours: the pivot and one other language per prompt", fields={"languages_per_step": 1}),
    }  # fmt: skip
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
    citation: ClassVar[str] = """@inproceedings{bu2026align,
  title = {Align Once, Benefit Multilingually: Enforcing Multilingual Consistency for {LLM} Safety Alignment},
  author = {Bu, Yuyan and Liu, Xiaohao and Ren, ZhaoXing and Yang, Yaodong and Dai, Juntao},
  booktitle = {International Conference on Learning Representations},
  year = {2026},
  note = {arXiv:2602.16660},
}"""

    base: str = "dpo"
    base_with: dict[str, Any] = dataclasses.field(default_factory=dict)
    weight: Annotated[float, Field(ge=0)] = 0.8
    form: Literal["rank1", "cosine"] = "rank1"
    temperature: Annotated[float, Field(gt=0)] = 0.2
    scale: Scale = "detached_top"
    layer: Literal["last", "auto"] | Annotated[int, Field(ge=1)] | Annotated[float, Field(gt=0, lt=1)] = "last"
    token: Literal["last_prompt", "mean"] = "last_prompt"
    projection: Literal["trained", "random", "none"] = "trained"
    projection_dim: Annotated[int, Field(ge=2)] = 512
    projection_learning_rate: Annotated[float, Field(ge=0)] = 6e-7
    pivot_stop_gradient: bool = False
    languages_per_step: Annotated[int, Field(ge=0)] = 0
    every: Annotated[int, Field(ge=1)] = 2
    prompts_per_step: Annotated[int, Field(ge=0)] = 0
    normalise: bool = False
    separation_weight: Annotated[float, Field(ge=0)] = 0.0
    separation_temperature: Annotated[float, Field(gt=0)] = 0.1
    benign: bool = True

    @field_validator("base")
    @classmethod
    def _carries(cls, base: str) -> str:
        """Return a base that can carry another loss; the error of any other name lists those that can."""
        if not _can_carry(base):
            able = [name for name in plugins.names("method") if _can_carry(name)]
            closest = nearest(base, able)
            raise ValueError(f"should be one of {', '.join(able)}{closest and f' ({closest})'}")
        return base

    @model_validator(mode="after")
    def _fits(self) -> MLC:
        """Return this method, once a base could be made of its fields."""
        _make_base(self.base, self.base_with)
        return self

    @property
    def needs(self) -> frozenset[Need]:
        """Return what the base needs, and the other languages' prompts."""
        mine: set[Need] = {"parallel_prompts", "benign_prompts"} if self.benign else {"parallel_prompts"}
        return frozenset(mine | self._base.needs)

    @property
    def builds_on(self) -> tuple[str, ...]:
        """Return the method whose code this one runs."""
        return (self.base,)

    @property
    def _base(self) -> Any:
        return _make_base(self.base, self.base_with)

    def check(self, corpus: Corpus, shape: Shape | None) -> None:
        """Refuse a layer beyond the model, and a training language without translations.

        Raises:
            ConfigError: The model has fewer layers.
            DataError: The prompts do not do.
        """
        if shape and isinstance(self.layer, int) and self.layer > shape.layers:
            allowed = ("last", "auto", f"1 to {shape.layers}", "a share of the depth between 0 and 1")
            raise ConfigError(
                f"layer {self.layer} is not a layer of this model, which has {shape.layers}", allowed=allowed
            )
        self.groups(corpus)
        if check := getattr(self._base, "check", None):
            check(view(corpus, self._base.needs), shape)

    def align(self, start: Checkpoint, corpus: Corpus, run: Run) -> Checkpoint:
        """Return the model trained with the loss of the base and the penalty."""
        groups = self.groups(corpus)

        def penalty(loaded: Loaded) -> Side:
            return self.side(loaded, groups, corpus.pivot, run)

        result: Checkpoint = self._base.align(start, view(corpus, self._base.needs), run, side=penalty)
        return result

    def groups(self, corpus: Corpus) -> tuple[Group, ...]:
        """Return the prompts that exist in the pivot language and in at least one more.

        Raises:
            DataError: A training language has no such prompt, or there are too few to choose a layer by.
        """
        groups = [group for group in corpus.parallel() if corpus.pivot in group and len(group) > 1]
        groups = [group for group in groups if self.benign or group[corpus.pivot].harmful]
        for language in corpus.languages:
            if language != corpus.pivot and not any(language in group for group in groups):
                raise DataError(
                    f"no prompt in {language!r} is a translation of one in {corpus.pivot!r}",
                    hint="rows that are translations of each other share their `id`",
                )
        if self.layer == "auto" and len({group[corpus.pivot].cluster for group in groups}) < 2:
            raise DataError("layer: auto compares prompts with each other, and there is only one")
        return tuple(groups)

    def batches(self, groups: Sequence[Group], pivot: Language, run: Run) -> list[list[Translations]]:
        """Return the prompts of each step that has the penalty."""
        from mlbench.training import fit

        size = self.prompts_per_step or run.training.batch_size
        steps = range(0, run.training.steps, self.every)
        order = fit.draw(len(groups), len(steps) * size, run.seed)
        chooser = random.Random(run.seed)
        picked = [self._translations(groups[index], pivot, chooser) for index in order]
        return [picked[at : at + size] for at in range(0, len(picked), size)]

    def _translations(self, group: Group, pivot: Language, chooser: random.Random) -> Translations:
        others = [language for language in group if language != pivot]
        if self.languages_per_step:
            others = chooser.sample(others, min(self.languages_per_step, len(others)))
        return tuple(group[language] for language in (pivot, *others))

    def side(self, loaded: Loaded, groups: Sequence[Group], pivot: Language, run: Run) -> Side:
        """Return the penalty for a start model, with its prompts laid out and encoded."""
        from mlbench.training import fit, geometry, hidden
        from mlbench.training.side import Side

        if self.layer == "auto":
            layer, groups = geometry.choose_layer(loaded, groups, pivot, self._read, run)
        else:
            layer = hidden.layer_index(self.layer, loaded.model)
        run.record(mlc_layer=layer)
        batches = self.batches(groups, pivot, run)
        rows = tuple(dict.fromkeys(row for batch in batches for prompt in batch for row in prompt))
        run.consume(rows, answers=False)
        tokens = dict(zip(rows, fit.encode_prompts(loaded, rows, run.training.max_length), strict=True))
        projection = self._projection(loaded, run.seed)

        def loss(model: nn.Module, prompts: Sequence[Translations]) -> Terms:
            flat = [tokens[row] for prompt in prompts for row in prompt]
            block = hidden.pad(flat, loaded.tokenizer.pad_token_id, next(model.parameters()).device)
            found = self._read(hidden.hidden_states(model, block, layer), block.mask)
            return self.terms(found, prompts, projection, sum(map(len, flat)))

        return Side(
            name="mlc",
            weight=self.weight,
            items=lambda step: () if step % self.every else batches[step // self.every],
            loss=loss,
            extra=projection,
            extra_learning_rate=self.projection_learning_rate,
        )

    def _read(self, states: Tensor, mask: Tensor) -> Tensor:
        from mlbench.training import hidden

        return (hidden.last_token if self.token == "last_prompt" else hidden.mean_token)(states, mask)

    def _projection(self, loaded: Loaded, seed: int) -> nn.Linear | None:
        import torch

        if self.projection == "none":
            return None
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            made = torch.nn.Linear(loaded.model.config.get_text_config().hidden_size, self.projection_dim)
        return made.requires_grad_(self.projection == "trained")

    def terms(self, found: Tensor, prompts: Sequence[Translations], projection: nn.Linear | None, tokens: int) -> Terms:
        """Return the loss and the monitor of prompts.

        Args:
            found: (rows, dim), the states of the first prompt's translations, then of the second's, ...
            prompts: The same rows.
            projection: W, or None.
            tokens: Tokens read, for the record.
        """
        import torch

        from mlbench.training import geometry
        from mlbench.training.side import Terms

        # In float32 whatever the trainer's precision, as in the released code.
        with torch.autocast(found.device.type, enabled=False):
            raw, present = geometry.grouped(found.float(), [len(prompt) for prompt in prompts])
            vectors = raw if projection is None else projection(raw)
            if self.pivot_stop_gradient:
                vectors = torch.cat([vectors[:, :1].detach(), vectors[:, 1:]], dim=1)
            names = [prompt[0].id for prompt in prompts]
            penalty = self._penalty(vectors, present, names)
            # Of the states themselves: a projection that satisfies the loss alone leaves them where they were.
            seen = geometry.monitor(raw, present, names, [prompt[0].harmful for prompt in prompts])
        return Terms(penalty.loss, {**penalty.values, **seen}, tokens)

    def _penalty(self, vectors: Tensor, present: Tensor, names: Sequence[str]) -> Terms:
        """Return L_cons + mu L_sep, and what it consists of."""
        from mlbench.training import geometry
        from mlbench.training.side import Terms

        units = geometry.unit_vectors(vectors, present)
        count = present.sum(-1).float()
        if self.form == "cosine":
            each = 1 - geometry.mean_cosine(units, present)
            least, most = count.new_zeros(()), count.new_ones(())
        else:
            each = consistency_loss(vectors, present, temperature=self.temperature, scale=self.scale)
            least, most = floor(count, temperature=self.temperature, scale=self.scale), count.log()
        values = {"normalised": ((each.detach() - least) / (most - least)).mean().item()}
        loss = (each / most if self.normalise else each).mean()
        if self.separation_weight:
            apart = geometry.instance_loss(geometry.mean_directions(units), names, self.separation_temperature).mean()
            values |= {"consistency": loss.item(), "separation": apart.item()}
            loss = loss + self.separation_weight * apart
        return Terms(loss, values, 0)


def _can_carry(name: str) -> bool:
    try:
        return "side" in inspect.signature(plugins.load("method", name).align).parameters
    except PluginError:  # unknown or broken: no candidate
        return False


def _make_base(name: str, fields: Mapping[str, Any]) -> Any:
    cls = plugins.load("method", name)
    known = [field.name for field in dataclasses.fields(cls)]
    try:
        return cls(**fields)
    except ValidationError as error:
        first = error.errors()[0]
        key = str(first["loc"][0]) if first["loc"] else ""
        reason = nearest(key, known) if key not in known else first["msg"]
        problem = f"{key!r} does not fit {name!r}{reason and f' ({reason})'}"
    except TypeError as error:
        problem = str(error)
    raise ValueError(f"base_with: {problem}; its fields are {', '.join(known)}")


plugin: type[Method] = MLC
