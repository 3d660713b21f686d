"""SDRRL: self-distillation from resource-rich languages, the model's own answers in the pivot teach the others.

For a prompt x_p in the pivot, x_t its translation, and y_p the answer of the start model to x_p (greedy):

    L = - sum_t log pi(y_t | x, y_<t)  over the tokens of y_p and its end of turn, x in {x_p, x_t}, mean per token

Pairs (x_p, y_p) keep the pivot where it is; pairs (x_t, y_p) ask a target language for what the pivot answers. No
answer of the corpus is read: the model can teach no more than it does in the pivot already, an unsafe answer included.

Source: Zhang et al., "Enhancing Multilingual Capabilities of Large Language Models through Self-Distillation from
Resource-Rich Languages", arXiv:2402.12204 (ACL 2024). A reconstruction from the abstract and second-hand descriptions;
the code was not read, and the paper is about general abilities, not safety. Left out:
- the pairs with a translated answer, (x_t, y_t) and (x_p, y_t), which need a translator besides the corpus. Without
  them the model learns to answer in the pivot whatever the question's language: on the small organism, 60 steps take
  its attack success to 0 and all its answers are in the pivot. Read its response languages beside its rates;
- the code-switched variants, which need word alignments;
- the small parallel corpus posed as translation tasks, which is no prompt of ours.
Further deviations: budget and optimiser are the shootout's; one model is taught all languages, the paper's one each, so
that a pair (x_p, y_p) is one in 1 + the number of target languages, and not one in two.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

from mlbench.core import (
    Answer,
    Checkpoint,
    Corpus,
    Example,
    Fidelity,
    Language,
    Method,
    Need,
    Preset,
    Prompt,
    Run,
    Shape,
)
from mlbench.errors import ConfigError, DataError

if TYPE_CHECKING:
    from mlbench.training.side import MakeSide

CACHE = "own-answers"


def own_answers(start: Checkpoint, rows: Sequence[Example], max_new_tokens: int, folder: Path) -> list[Answer]:
    """Return the greedy answer of the start model to each row, computed once for all seeds.

    All rows are asked whatever the budget draws: a prompt's answer can depend on what stands beside it in a batch, and
    must not depend on which seed was first to ask.
    """
    from mlbench import models

    prompts = [Prompt(id=row.id, cluster=row.cluster, language=row.language, text=row.prompt) for row in rows]
    path = folder / f"{CACHE}-{_key(start, prompts, max_new_tokens)}.json"
    if path.is_file():
        kept = json.loads(path.read_text(encoding="utf-8"))
        return [Answer(prompt=prompt, **fields) for prompt, fields in zip(prompts, kept, strict=True)]
    answers = models.generate(models.load(start), prompts, max_new_tokens=max_new_tokens)
    kept = [{"text": each.text, "tokens": each.tokens, "truncated": each.truncated} for each in answers]
    temporary = path.with_suffix(f".{os.getpid()}")
    temporary.write_text(json.dumps(kept, ensure_ascii=False), encoding="utf-8")
    temporary.replace(path)
    return answers


def _key(start: Checkpoint, prompts: Sequence[Prompt], max_new_tokens: int) -> str:
    from mlbench import sources

    base = sources.fingerprint(Path(start.base)) if Path(start.base).is_dir() else f"{start.base}@{start.revision}"
    adapters = [_digest(Path(folder)) for folder in start.adapters]
    model = [base, adapters, start.dtype, sorted(start.system_prompts.items())]
    facts = [model, [asdict(prompt) for prompt in prompts], max_new_tokens]
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]


def _digest(adapter: Path) -> str:
    names = ("adapter_config.json", "adapter_model.safetensors")
    return hashlib.sha256(b"\0".join((adapter / name).read_bytes() for name in names)).hexdigest()


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class SDRRL:
    """Self-distillation from the pivot language.

    Attributes:
        pairs: "pivot" is (x_p, y_p), "cross" is (x_t, y_p). The paper has both; "pivot" alone is a control: steps as
            many, and nothing taught that the model does not say already.
        languages: Languages of x_t: "all" but the pivot, or codes. The paper trains one model per language.
        benign: Whether harmless prompts take part, as they do in the paper, whose prompts are harmless. Without them a
            model can lower the loss by refusing everything.
        max_new_tokens: Longest own answer; one that reaches it was cut off and is left out. 256 is ours, the paper's
            value is not known to us.
    """

    paper: ClassVar[str] = "arXiv:2402.12204"
    fidelity: ClassVar[Fidelity] = "reconstruction"
    presets: ClassVar[Mapping[str, Preset]] = {
        "pivot-only": Preset(
            note="Ours, a control: pivot prompts with the answers that the model gives already.",
            fields={"pairs": ("pivot",)},
        ),
        "cross-only": Preset(
            note="Ours, an ablation: nothing holds the pivot where it is.", fields={"pairs": ("cross",)}
        ),
    }
    citation: ClassVar[str] = """@inproceedings{zhang2024sdrrl,
  title = {Enhancing Multilingual Capabilities of Large Language Models through Self-Distillation from Resource-Rich
    Languages},
  author = {Zhang, Yuanchi and Wang, Yile and Liu, Zijun and Wang, Shuo and Wang, Xiaolong and Li, Peng and Sun, Maosong
    and Liu, Yang},
  booktitle = {Proceedings of the 62nd Annual Meeting of the Association for Computational Linguistics},
  year = {2024},
  url = {https://arxiv.org/abs/2402.12204}
}"""

    pairs: Annotated[tuple[Literal["pivot", "cross"], ...], Field(min_length=1)] = ("pivot", "cross")
    languages: Literal["all"] | tuple[Language, ...] = "all"
    benign: bool = True
    max_new_tokens: Annotated[int, Field(ge=1)] = 256

    @property
    def needs(self) -> frozenset[Need]:
        """Return the prompts in all languages; it reads no answer."""
        needs: set[Need] = {"parallel_prompts"}
        if self.benign:
            needs.add("benign_prompts")
        return frozenset(needs)

    def check(self, corpus: Corpus, shape: Shape | None) -> None:
        """Refuse a corpus without translations of the pivot's prompts.

        Raises:
            ConfigError: A language is the pivot, or not one of the corpus.
            DataError: A language has no prompt that is a translation of one in the pivot.
        """
        if "cross" in self.pairs:
            groups = corpus.parallel()
            for language in self._targets(corpus):
                if not any(language in group and corpus.pivot in group for group in groups):
                    raise DataError(f"no prompt in {language!r} is a translation of one in {corpus.pivot!r}")

    def _targets(self, corpus: Corpus) -> tuple[Language, ...]:
        others = tuple(language for language in corpus.languages if language != corpus.pivot)
        codes = others if self.languages == "all" else self.languages
        for code in codes:
            if code not in others:
                raise ConfigError(f"{code!r} is not a target language of the training corpus", allowed=others)
        return codes

    def align(self, start: Checkpoint, corpus: Corpus, run: Run, side: MakeSide | None = None) -> Checkpoint:
        """Return the model trained on its own pivot answers.

        Raises:
            DataError: The start model gave no whole answer.
        """
        from mlbench import training

        self.check(corpus, None)
        asked = [row for row in corpus.rows(corpus.pivot) if self.benign or row.harmful]
        answers = own_answers(start, asked, self.max_new_tokens, run.shared)
        run.consume(asked, answers=False)
        whole = {each.prompt.id: each.text for each in answers if each.text and not each.truncated}
        run.record(
            own_answers=len(whole),
            own_answers_dropped=len(answers) - len(whole),
            own_answer_tokens=sum(each.tokens for each in answers),
        )
        rows = self.rows(corpus, whole)
        if not rows:
            raise DataError(
                f"no pair to train on: {len(whole)} of the start model's {len(answers)} own answers are whole, "
                "the others are empty or cut off",
                hint=f"raise `max_new_tokens` (now {self.max_new_tokens})",
            )
        return training.sft(start, rows, run, answers=False, side=side)

    def rows(self, corpus: Corpus, answers: Mapping[str, str]) -> list[Example]:
        """Return the pairs: prompts in the pivot and in the target languages, each with the pivot answer to it."""
        pivot = (corpus.pivot,) if "pivot" in self.pairs else ()
        languages = (*pivot, *(self._targets(corpus) if "cross" in self.pairs else ()))
        rows = [row for language in languages for row in corpus.rows(language) if row.id in answers]
        return [replace(row, chosen=answers[row.id], rejected=None) for row in rows]


plugin: type[Method] = SDRRL
