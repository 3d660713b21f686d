"""MSD: multilingual self-distillation, the model under a pivot-language context teaches itself in other languages.

Reconstruction: only the abstract and second-hand readings of the paper were at hand, and no code was released. One
model is teacher and student. The student sees a prompt x^l in language l; the teacher sees its translation x^e in the
pivot language and an instruction c, such as to judge the request before answering in l. No answer of any language and,
but for `benign_share` and `context`, no safety label is read. For an answer y = y_1 ... y_n,

    L   = mean over y of  1/n sum_t  w_t D( p_T(. | x^e, c, y_<t), p_S(. | x^l, y_<t) )
    w_t = w_t^T w_t^S / Z,   w_t^T = 1 - H_K(p_T) / ln K,   w_t^S = 1 - p_S(a_t)       (DPSW, no gradient)

with H_K the entropy of the teacher's K likeliest tokens, renormalised. On-policy the student samples y from x^l;
off-policy the teacher samples it once from (x^e, c).

Sources: Qin et al., "Multilingual Safety Alignment via Self-Distillation", arXiv:2605.02971: abstract and author page
for the two versions and for weights from teacher and student confidence. The readings of it at
github.com/thinkwee/AwesomeOPD (product of a top-K entropy term and 1 - p_S, reverse KL) and
github.com/muzishen/Awesome-Latent-Knowledge-Papers, entry I-014 (the contexts). Open, so options here: the sign of the
entropy term, K, Z, the token a_t, the divergence and its direction, what becomes of the teacher's reasoning (`cot`),
frozen or moving teacher, share of benign prompts, every optimiser setting. The spread between the presets `literal` and
`tuned` is the uncertainty of the reconstruction. No number of the paper is known, so `reported` is empty.

The preset `opsa` is another method on the same machinery: Fu et al., "Reducing the Safety Tax in LLM Safety Alignment
with On-Policy Self-Distillation", arXiv:2605.15239, after its re-implementation in github.com/wjl-bupt/EasyOPD, commit
bbb59ed. Its teacher sees the student's own prompt with an instruction that depends on whether it is harmful, D is the
forward KL, and w_t = 1 for the first tokens, then falls. It was proposed for one language; here it sees all of them.

Ours: identity rows in the pivot (`pivot_rows`), `retention`, the wording of all instructions.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import AfterValidator, ConfigDict, Field, model_validator
from pydantic.dataclasses import dataclass

from mlbench.core import Checkpoint, Corpus, Example, Fidelity, Language, Method, Need, Preset, Run, Shape
from mlbench.errors import DataError

if TYPE_CHECKING:
    from torch import Tensor

    from mlbench.models import Loaded
    from mlbench.sampling import Decoding
    from mlbench.training.answers import Dialogue
    from mlbench.training.distil import Distillation
    from mlbench.training.fit import Turns
    from mlbench.training.lessons import Lesson
    from mlbench.training.side import MakeSide

Tokens = list[int]

PLACEHOLDER = re.compile(r"\{(\w*)\}")
CHECKED = 64
"""Prompts of which the teacher's opening is compared with the student's before training."""
BUDGET = dict(
    steps=200, batch_size=32, learning_rate=1e-5, warmup=0.05, schedule="constant", lora_rank=64, lora_alpha=128
)
"""Ours, near what relatives with released code (COPSD, OPSD) train with; the paper's budget is not known."""


def fill(template: str, **values: str) -> str:
    """Return a template with `{name}` replaced; braces inside the values stay what they are."""
    return PLACEHOLDER.sub(lambda found: values[found[1]], template)


def _placeholders(template: str) -> str:
    unknown = set(PLACEHOLDER.findall(template)) - {"prompt", "language"}
    if unknown:
        raise ValueError(f"unknown placeholder {{{min(unknown)}}}; allowed: {{prompt}}, {{language}}")
    return template


def _with_prompt(template: str) -> str:
    if "{prompt}" not in template:
        raise ValueError("the template has no {prompt}: the teacher would not see the request")
    return _placeholders(template)


Template = Annotated[str, AfterValidator(_with_prompt)]
FollowUp = Annotated[str, AfterValidator(_placeholders)]


def entropy_share(teacher: Tensor, top_k: int) -> Tensor:
    """Return H_K(p_T) / ln K of each token, (tokens,), in [0, 1]; `teacher` holds log-probabilities."""
    import math

    size = min(top_k, teacher.shape[-1])
    # q_T: the K likeliest tokens, renormalised
    top = teacher.topk(size, dim=-1).values.log_softmax(-1)
    return -(top.exp() * top).sum(-1) / math.log(size)


def disagreement(student: Tensor, teacher: Tensor, tokens: Tensor, which: str) -> Tensor:
    """Return 1 - p_S(a_t) of each token, (tokens,), a_t being y_t ("realised") or argmax p_T ("teacher_argmax")."""
    asked = tokens if which == "realised" else teacher.argmax(-1)
    return 1 - student.gather(-1, asked[:, None])[:, 0].exp()


def early_window(length: int, *, window: int, floor: float, decay: Literal["linear", "step"]) -> list[float]:
    """Return the weights of an answer's tokens: 1 in the window, then down to the floor at its end, or at once."""
    if decay == "step":
        return [1.0 if place <= window else floor for place in range(1, length + 1)]
    beyond = max(1, length - window)
    return [1 - (1 - floor) * max(0, place - window) / beyond for place in range(1, length + 1)]


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class MSD:
    """Multilingual self-distillation. Defaults are the literal reading of the sources; OPSA is a preset.

    Attributes:
        policy: Who samples the answers: "on" the student as it is at that step, "off" the start model in the teacher's
            context, once, whatever the seed. The paper has both.
        context: "cross_lingual": the teacher sees the pivot's prompt (MSD). "type_conditional": it sees the student's
            prompt with an instruction for harmful or for benign ones (OPSA).
        cot: Whether the teacher reasons first, which the readings say but not how. "literal": it is told to, and its
            answers are used as they come, so the student may learn to open with reasoning. "prefilled" (ours): it
            writes its reasoning once per prompt, greedily, as a turn of its own, and only what comes after is
            compared. "none": it is only told which language to answer in.
        divergence: "reverse_kl" KL(student || teacher), as one reading says without certainty; "forward_kl"; "jsd".
        weighting: "dual" w^T w^S (the paper), "teacher" or "student" one of them, "early_window" (OPSA), "none".
        teacher_term: w^T: "confidence" is 1 - H_K / ln K, "entropy" H_K / ln K. The sources fit both; the authors
            speak of confidence.
        student_token: a_t: "realised" is the answer's token, "teacher_argmax" the teacher's likeliest. Open.
        top_k: K. Open.
        scale: Z: "literal" is 1, which makes the loss much smaller than an unweighted one; "running_mean" (ours) the
            mean of the weights over the steps so far, so that weightings compare at one learning rate.
        cap: Largest weight after scaling; none by default. Open.
        window: Tokens of full weight of "early_window"; 32 in the re-implementation.
        window_floor: Its smallest weight; 0.1 in the re-implementation.
        window_decay: "linear" down to the floor at the answer's end (the re-implementation), or a "step".
        aggregate: Mean over each answer, then over answers ("sequence"), or over all tokens ("token", OPSA). Open.
        teacher: "frozen" start model, "ema" moving average of the student, "live" the student itself. Open in the
            paper; its relatives freeze it.
        ema_rate: How far the average goes towards the student after each step.
        benign_share: Share of benign prompts among the drawn ones. Open; 0.5 is OPSA's.
        pivot_rows: Ours: whether the pivot takes part as one more language. In "cross_lingual" the teacher then sees
            exactly the student's prompt, so that safety in the pivot stays where it was.
        retention: Ours: weight of KL(start model || student) on benign prompts of the other languages, each with an
            answer that the start model samples once.
        max_new_tokens: Longest answer; also of the reasoning of "prefilled". Open. A relative finds that the opening
            decides.
        temperature: Of the sampling; the loss has temperature 1.
        top_p: Smallest mass of likeliest tokens sampled from.
        answer_instruction: The teacher's turn without reasoning.
        cot_instruction: The same with reasoning before the answer.
        analysis_instruction: What has it write its reasoning alone.
        follow_up_instruction: The turn after that reasoning.
        harmful_instruction: Of "type_conditional", for harmful prompts.
        benign_instruction: The same for benign ones.
    """

    paper: ClassVar[str] = "arXiv:2605.02971"
    fidelity: ClassVar[Fidelity] = "reconstruction"
    reported: ClassVar[tuple[Mapping[str, str | float], ...]] = ()
    citation: ClassVar[str] = """@article{qin2026msd,
  title   = {Multilingual Safety Alignment via Self-Distillation},
  author  = {Qin, Ruiyang and Wang, Qingzhuo and Liu, Dongrui and Li, Qiang and Wei, Zhihua and Shen, Wen},
  journal = {arXiv preprint arXiv:2605.02971},
  year    = {2026}
}
@article{fu2026opsa,
  title   = {Reducing the Safety Tax in {LLM} Safety Alignment with On-Policy Self-Distillation},
  author  = {Fu and Yu and Shahgir and Wei and Liu and Erichson and Dong},
  journal = {arXiv preprint arXiv:2605.15239},
  year    = {2026}
}"""
    presets: ClassVar[Mapping[str, Preset]] = {
        "literal": Preset(
            note="only what the sources say, on-policy; the sign of the entropy term is assumed", training=BUDGET
        ),
        "tuned": Preset(
            note="our choices where the sources are silent: reasoning prefilled, teacher's token, weights of mean 1",
            fields={"cot": "prefilled", "student_token": "teacher_argmax", "scale": "running_mean"},
            training=BUDGET,
        ),
        "off-policy": Preset(
            note="the paper's other version, the teacher's own answers sampled once; otherwise as literal",
            fields={"policy": "off"},
            training=BUDGET,
        ),
        "opsa": Preset(
            note="OPSA, arXiv:2605.15239, after the EasyOPD re-implementation (sampling at 0.6, rate 1e-5: its values "
            "named original)",
            fields={
                "context": "type_conditional",
                "cot": "none",
                "divergence": "forward_kl",
                "weighting": "early_window",
                "aggregate": "token",
                "temperature": 0.6,
                "max_new_tokens": 1024,
            },
            training=BUDGET | {"batch_size": 128, "weight_decay": 0.01, "lora_rank": 0, "max_length": 2048},
        ),
    }

    policy: Literal["on", "off"] = "on"
    context: Literal["cross_lingual", "type_conditional"] = "cross_lingual"
    cot: Literal["literal", "prefilled", "none"] = "literal"
    divergence: Literal["reverse_kl", "forward_kl", "jsd"] = "reverse_kl"
    weighting: Literal["dual", "teacher", "student", "early_window", "none"] = "dual"
    teacher_term: Literal["confidence", "entropy"] = "confidence"
    student_token: Literal["realised", "teacher_argmax"] = "realised"
    top_k: Annotated[int, Field(ge=2)] = 20
    scale: Literal["literal", "running_mean"] = "literal"
    cap: Annotated[float, Field(gt=0)] | None = None
    window: Annotated[int, Field(ge=1)] = 32
    window_floor: Annotated[float, Field(ge=0, le=1)] = 0.1
    window_decay: Literal["linear", "step"] = "linear"
    aggregate: Literal["sequence", "token"] = "sequence"
    teacher: Literal["frozen", "ema", "live"] = "frozen"
    ema_rate: Annotated[float, Field(gt=0, lt=1)] = 0.05
    benign_share: Annotated[float, Field(ge=0, le=1)] = 0.5
    pivot_rows: bool = True
    retention: Annotated[float, Field(ge=0)] = 0.0
    max_new_tokens: Annotated[int, Field(ge=1)] = 256
    temperature: Annotated[float, Field(gt=0)] = 1.0
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    answer_instruction: Template = "{prompt}\n\nAnswer in {language}."
    cot_instruction: Template = (
        "{prompt}\n\nFirst judge step by step, in English, whether this request is harmful. Then answer it in "
        "{language}: refuse if it is harmful, help if it is not."
    )
    analysis_instruction: Template = (
        "{prompt}\n\nJudge step by step, in English, whether this request is harmful. Do not answer it yet."
    )
    follow_up_instruction: FollowUp = (
        "Now answer the request in {language}: refuse if it is harmful, help if it is not."
    )
    harmful_instruction: Template = "The following request is harmful. Refuse it clearly and say why.\n\n{prompt}"
    benign_instruction: Template = "The following request is harmless. Help with it and do not refuse.\n\n{prompt}"

    @model_validator(mode="after")
    def _one_reasoning(self) -> MSD:
        if self.context == "type_conditional" and self.cot != "none":
            raise ValueError("a type_conditional context has no reasoning: set `cot: none`")
        return self

    @property
    def needs(self) -> frozenset[Need]:
        """Return the prompts of all languages, benign ones where they take part; no answers."""
        needs: set[Need] = {"parallel_prompts"}
        if self.benign_share or self.retention:
            needs.add("benign_prompts")
        return frozenset(needs)

    def check(self, corpus: Corpus, shape: Shape | None) -> None:
        """Refuse a corpus that lacks prompts.

        Raises:
            DataError: A language has no prompt of a kind that is to be drawn.
        """
        origin = f" that is a translation of one in {corpus.pivot!r}" if self.context == "cross_lingual" else ""
        for kind, drawn in (("harmful", self.benign_share < 1), ("benign", self.benign_share > 0)):
            for language in self.languages(corpus) if drawn else ():
                if not self.pool(corpus, language, harmful=kind == "harmful"):
                    hint = "rows that are translations of each other share their `id`"
                    raise DataError(f"no {kind} prompt in {language!r}{origin}", hint=hint)
        if self.retention and not self.benign(corpus):
            raise DataError("no benign prompt in any language but the pivot, which `retention` needs")

    def languages(self, corpus: Corpus) -> tuple[Language, ...]:
        """Return the languages whose prompts are drawn, all equally often."""
        return tuple(code for code in corpus.languages if self.pivot_rows or code != corpus.pivot)

    def pool(self, corpus: Corpus, language: Language, *, harmful: bool) -> tuple[Example, ...]:
        """Return the rows of one language and kind that the teacher's context exists for."""
        known = {row.id for row in corpus.rows(corpus.pivot)}
        rows = (row for row in corpus.rows(language) if row.harmful == harmful)
        return tuple(row for row in rows if self.context == "type_conditional" or row.id in known)

    def benign(self, corpus: Corpus) -> tuple[Example, ...]:
        """Return the prompts that `retention` draws from."""
        return tuple(row for row in corpus.examples if not row.harmful and row.language != corpus.pivot)

    def rows(self, corpus: Corpus, run: Run) -> tuple[Example, ...]:
        """Return the drawn prompts, as many as the budget has, languages in equal parts; not yet in order."""
        from mlbench.training import lessons

        picks = run.training.steps * run.training.batch_size
        benign = round(self.benign_share * picks)
        found: list[Example] = []
        for harmful, count in ((True, picks - benign), (False, benign)):
            pools = [self.pool(corpus, language, harmful=harmful) for language in self.languages(corpus)]
            found += lessons.draw(pools, count, f"{run.seed} {harmful}")
        return tuple(found)

    def align(self, start: Checkpoint, corpus: Corpus, run: Run, side: MakeSide | None = None) -> Checkpoint:
        """Return the model after it has learnt from itself in the teacher's context."""
        from mlbench import training

        self.check(corpus, None)
        made: list[Distillation] = []

        def make(loaded: Loaded, rows: Sequence[Example]) -> Distillation:
            made.append(self.distillation(loaded, rows, corpus, run))
            return made[0]

        result = training.train(start, self.rows(corpus, run), run, make, answers=False, side=side)
        run.record(rollout_tokens=made[0].sampled_tokens)
        return result

    def distillation(self, loaded: Loaded, rows: Sequence[Example], corpus: Corpus, run: Run) -> Distillation:
        """Return the objective for rows in the order of the steps."""
        from mlbench.training import distil

        distil.without_dropout(loaded.model)
        lessons = self.lessons(loaded, rows, corpus, run)
        # Where there is none, all rows are benign or of the pivot.
        others = [at for at, row in enumerate(rows) if row.harmful and row.language != corpus.pivot] or range(len(rows))
        run.record(**distil.openings(loaded, [lessons[at] for at in others[:CHECKED]]))
        lora = run.training.lora_rank > 0
        teacher = distil.Teacher(self.teacher, loaded.model, lora=lora, rate=self.ema_rate)
        frozen = distil.Teacher("frozen", loaded.model, lora=lora) if self.retention else None
        recipe = distil.Recipe(
            name="msd",
            divergence=self.divergence,
            weigh=self.weigh,
            running_mean=self.scale == "running_mean",
            cap=self.cap,
            aggregate=self.aggregate,
            retention=self.retention,
            decoding=self.decoding,
        )
        return distil.Distillation(recipe, lessons, teacher, frozen, loaded.speaker, run)

    @property
    def decoding(self) -> Decoding:
        """Return how answers are sampled."""
        from mlbench.sampling import Decoding

        return Decoding(self.max_new_tokens, self.temperature, self.top_p)

    def lessons(self, loaded: Loaded, rows: Sequence[Example], corpus: Corpus, run: Run) -> list[Lesson]:
        """Return what student and teacher see of each row, and what the start model has written beforehand."""
        from mlbench.training import lessons

        kept: Sequence[Dialogue | None] = [None] * len(rows)
        if self.retention:
            benign = lessons.draw([self.benign(corpus)], len(rows), f"{run.seed} retention")
            run.consume(benign, answers=False)
            kept = lessons.own_answers(loaded, benign, run, self.decoding)
        chats = self.contexts(loaded, rows, corpus, run)
        return lessons.lessons(loaded, rows, chats, run, self.decoding, given=self.policy == "off", kept=kept)

    def contexts(self, loaded: Loaded, rows: Sequence[Example], corpus: Corpus, run: Run) -> list[Turns]:
        """Return the teacher's chat for each row, its reasoning written where it is prefilled."""
        from mlbench.training import fit, lessons

        pivots = {row.id: row for row in corpus.rows(corpus.pivot)}
        seen = [pivots[row.id] if self.context == "cross_lingual" else row for row in rows]
        run.consume(seen, answers=False)
        names = [corpus.names.get(row.language, row.language) for row in rows]
        templates = [self.instruction(row, corpus.pivot) for row in rows]
        chats = [
            fit.turns(loaded.checkpoint, replace(source, prompt=fill(template, prompt=source.prompt, language=name)))
            for template, source, name in zip(templates, seen, names, strict=True)
        ]
        at = [index for index, row in enumerate(rows) if self.cot == "prefilled" and row.language != corpus.pivot]
        greedy = self.decoding._replace(temperature=0.0)
        texts = lessons.written(loaded, [rows[i] for i in at], [chats[i] for i in at], run, greedy) if at else []
        for index, reasoning in zip(at, texts, strict=True):
            now = fill(self.follow_up_instruction, prompt=seen[index].prompt, language=names[index])
            chats[index] = [*chats[index], *fit.answer(reasoning), {"role": "user", "content": now}]
        return chats

    def instruction(self, row: Example, pivot: Language) -> str:
        """Return the template of the teacher's turn for a row."""
        if self.context == "type_conditional":
            return self.harmful_instruction if row.harmful else self.benign_instruction
        if row.language == pivot:
            return "{prompt}"
        if self.cot == "none":
            return self.answer_instruction
        return self.cot_instruction if self.cot == "literal" else self.analysis_instruction

    def weigh(self, student: Tensor, teacher: Tensor, answers: Sequence[Tokens]) -> Tensor:
        """Return the unscaled weight of each token, (tokens,), given log-probabilities, (tokens, vocabulary)."""
        import torch

        weights = torch.ones_like(teacher[:, 0])
        if self.weighting == "early_window":
            shape = partial(early_window, window=self.window, floor=self.window_floor, decay=self.window_decay)
            weights = weights.new_tensor([weight for answer in answers for weight in shape(len(answer))])
        if self.weighting in ("dual", "teacher"):
            share = entropy_share(teacher, self.top_k)
            weights = weights * (1 - share if self.teacher_term == "confidence" else share)
        if self.weighting in ("dual", "student"):
            tokens = torch.tensor([token for answer in answers for token in answer], device=student.device)
            weights = weights * disagreement(student, teacher, tokens, self.student_token)
        return weights


plugin: type[Method] = MSD
