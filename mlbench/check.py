"""The contract of a plugin, as checks that anyone can run on theirs: `mlbench check <plugin>`.

Each check is one sentence that holds or does not. Methods are tried on tiny random models of several architectures;
tasks and judges whose data or model is not on this machine are checked as far as that goes.
"""

from __future__ import annotations

import ast
import hashlib
import inspect
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import FrozenInstanceError, asdict, dataclass, fields, is_dataclass
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, get_args

from pydantic import TypeAdapter

from mlbench import core
from mlbench.core import Answer, Checkpoint, Judge, Kind, Label, Method, Need, Prompt, Task, Tier
from mlbench.corpus import lacks, view
from mlbench.errors import MlbenchError, UserError

if TYPE_CHECKING:
    from mlbench.tiny import Log

HEAVY = frozenset({"torch", "transformers", "trl", "peft", "datasets", "ray", "mlflow", "accelerate", "lm_eval"})
MEMBERS: Mapping[str, tuple[str, ...]] = {
    "method": ("paper", "needs", "align"),
    "task": ("source", "kind", "languages", "tiers", "judge", "prompts"),
    "judge": ("grade",),
}
ARCHITECTURES = ("llama", "qwen2", "qwen3", "gemma2")
LORA_RANKS = (0, 4)
GARBAGE = (
    "",
    " ",
    "\x00",
    "?!",
    "a" * 5000,
    "ok " * 500,
    "\ufffd" * 40,
    "<script>",
    '{"label": "refused"}',
    "ⴰⵣⵓⵍ",
    "🙂",
)


@dataclass(frozen=True, kw_only=True)
class Finding:
    """What one check found.

    Attributes:
        check: The sentence that was checked.
        passed: Whether it holds; True for a check that could not be made.
        detail: What is wrong, or why the check could not be made.
        skipped: Whether the check could not be made here.
    """

    check: str
    passed: bool
    detail: str = ""
    skipped: bool = False


def plugin(kind: str, cls: type, folder: Path, architectures: Sequence[str] = ARCHITECTURES) -> Iterator[Finding]:
    """Yield the findings on one plugin class, cheap ones first.

    Args:
        kind: "method", "task" or "judge".
        cls: The plugin.
        folder: An empty folder for models and results.
        architectures: Model types a method is tried on.
    """
    static = list(_static(kind, cls))
    yield from static
    if not all(finding.passed for finding in static):
        return
    if kind == "method":
        yield from method(cls(), folder, architectures)
    elif kind == "task":
        yield from task(cls())
    else:
        yield from judge(cls())


def _static(kind: str, cls: type) -> Iterator[Finding]:
    yield _attempt("can be made without arguments", lambda: _made(cls))
    yield _attempt(f"has the members of a {kind}", lambda: _has_role(kind, cls))
    yield _attempt("is a frozen dataclass", lambda: _frozen(cls))
    yield _attempt("has fields of plain data", lambda: _plain(cls))
    yield _attempt("refuses a field it does not know", lambda: _strict(cls))
    yield _attempt("imports no heavy library at the top of its module", lambda: _light(cls))


def _attempt(check: str, run: Callable[[], str]) -> Finding:
    """Return a finding: it fails with the text that `run` returns, or with what it raises."""
    try:
        wrong = run()
    except Exception as error:  # whatever a plugin raises is a finding
        wrong = f"{type(error).__name__}: {error}"
    return Finding(check=check, passed=not wrong, detail=wrong)


def _made(cls: type) -> str:
    cls()
    return ""


def _has_role(kind: str, cls: type) -> str:
    made = cls()
    missing = [name for name in MEMBERS[kind] if not hasattr(made, name)]
    return f"it lacks {', '.join(missing)}" if missing else ""


def _frozen(cls: type) -> str:
    if not is_dataclass(cls):
        return "it is no dataclass"
    made = cls()
    for field in fields(made):
        try:
            setattr(made, field.name, getattr(made, field.name))
        except FrozenInstanceError:
            continue
        return f"its field {field.name!r} can be set after construction"
    return ""


def _plain(cls: Any) -> str:
    json.dumps(asdict(cls()))
    return ""


def _strict(cls: type) -> str:
    try:
        cls(no_such_field=1)
    except (TypeError, ValueError):
        return ""
    return "a misspelt field would be ignored silently"


def _light(cls: type) -> str:
    source = inspect.getsourcefile(cls)
    if source is None:
        return ""
    found = set()
    for node in ast.parse(Path(source).read_text(encoding="utf-8")).body:
        names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        found |= {name.split(".")[0] for name in names} & HEAVY
    return f"{', '.join(sorted(found))}: import it inside the function that uses it" if found else ""


def method(subject: Method, folder: Path, architectures: Sequence[str] = ARCHITECTURES) -> Iterator[Finding]:
    """Yield the findings on a method, trained for two steps per architecture with LoRA and in full."""
    from mlbench.training import fit

    yield _attempt("states its paper", lambda: "" if subject.paper else "`paper` is empty")
    unknown = sorted(set(subject.needs) - set(get_args(Need)))
    yield Finding(check="names known needs", passed=not unknown, detail=", ".join(unknown))
    yield _attempt("is refused without what it needs", lambda: _refused(subject))
    yield _attempt("has presets that fit its fields and the budget", lambda: _presets(subject))
    for architecture in architectures:
        for rank in LORA_RANKS:
            with fit.quiet():
                findings = list(_trial(subject, folder / f"{architecture}-{rank}", architecture, rank))
            yield from findings
    with fit.quiet():
        repeated = _attempt("same seed, same tensors", lambda: _repeats(subject, folder / "repeat", architectures[0]))
    yield repeated


def _refused(subject: Method) -> str:
    from mlbench import tiny

    for need in sorted(subject.needs):
        if not lacks(view(tiny.corpus(), subject.needs - {need}), subject.needs):
            return f"a corpus without {need} passes for one that has it"
    return ""


def _presets(subject: Method) -> str:
    presets: Mapping[str, core.Preset] = getattr(subject, "presets", {})
    for name, preset in presets.items():
        if not preset.note:
            return f"{name!r} has no note that says where it comes from"
        type(subject)(**preset.fields)
        TypeAdapter(core.Training).validate_python({**preset.training})
    return ""


def _trial(subject: Method, folder: Path, architecture: str, rank: int) -> Iterator[Finding]:
    from mlbench import tiny

    on = f"{architecture}, {f'LoRA rank {rank}' if rank else 'all weights'}"
    start = tiny.taught(folder / "start", architecture)
    before = _digest(folder / "start")
    run = tiny.Log(folder=folder / "run", training=tiny.budget(lora_rank=rank))
    try:
        result = subject.align(start, view(tiny.corpus(), subject.needs), run)
    except Exception as error:  # whatever a plugin raises is a finding
        yield Finding(check=f"runs ({on})", passed=False, detail=f"{type(error).__name__}: {error}")
        return
    yield Finding(check=f"runs ({on})", passed=True)
    after = _digest(folder / "start")
    yield Finding(check=f"leaves the start model as it was ({on})", passed=before == after)
    yield _attempt(f"writes below the run's folder only ({on})", lambda: _places(result, start, run.folder))
    yield _attempt(f"loads in transformers and peft alone ({on})", lambda: _loads(result))
    yield _attempt(f"tells what it read ({on})", lambda: _tells(subject, run, start, result))


def _digest(folder: Path) -> str:
    sha = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        sha.update(str(path.relative_to(folder)).encode() + b"\0" + path.read_bytes())
    return sha.hexdigest()


def _places(result: Checkpoint, start: Checkpoint, folder: Path) -> str:
    new = [place for place in (result.base, *result.adapters) if place not in (start.base, *start.adapters)]
    outside = [place for place in new if not Path(place).is_absolute() or folder.resolve() not in Path(place).parents]
    return f"{', '.join(outside)} is not an absolute path below {folder}" if outside else ""


def _loads(result: Checkpoint) -> str:
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(result.base)
    model = AutoModelForCausalLM.from_pretrained(result.base, use_safetensors=True)
    for adapter in result.adapters:
        model = PeftModel.from_pretrained(model, adapter).merge_and_unload()
    turns = [{"role": "user", "content": "en good 1"}]
    text = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
    with torch.no_grad():
        logits = model(**tokenizer(text, add_special_tokens=False, return_tensors="pt")).logits
    return "" if bool(logits.isfinite().all()) else "its logits are not finite"


def _tells(subject: Method, run: Log, start: Checkpoint, result: Checkpoint) -> str:
    from mlbench import tiny

    visible = view(tiny.corpus(), subject.needs).examples
    rows = {(row.language, row.id) for row in visible}
    answered = {(row.language, row.id) for row in visible if row.chosen is not None}
    for language, id, answers in sorted(run.read):
        if (language, id) not in (answered if answers else rows):
            return f"it reports to have read {id!r} in {language!r}, which its needs do not name"
    if subject.needs and not run.read:
        return "it needs data but reports to have read none: call run.consume(rows, answers=...)"
    if result != start and "weight_change" not in run.facts:
        return "call run.record(weight_change=...) with the relative L2 norm of the change of the weights"
    return ""


def _repeats(subject: Method, folder: Path, architecture: str) -> str:
    from mlbench import tiny

    start = tiny.taught(folder / "start", architecture)
    contents = []
    for name in ("first", "second"):
        run = tiny.Log(folder=folder / name, seed=7)
        subject.align(start, view(tiny.corpus(), subject.needs), run)
        files = sorted(run.folder.rglob("*.safetensors"))
        contents.append([(path.relative_to(run.folder), path.read_bytes()) for path in files])
    return "" if contents[0] == contents[1] else "two runs with one seed wrote different weights"


def task(subject: Task) -> Iterator[Finding]:
    """Yield the findings on a task; without its data only what it declares is checked."""
    yield _attempt("states its source", lambda: "" if subject.source else "`source` is empty")
    yield _member("has a known kind", subject.kind, get_args(Kind))
    languages = subject.languages
    yield Finding(check="has languages", passed=bool(languages), detail="" if languages else "`languages` is empty")
    untiered = [language for language in languages if subject.tiers.get(language) not in get_args(Tier)]
    yield Finding(check="gives every language a tier", passed=not untiered, detail=", ".join(untiered))
    yield _attempt("names its default judge", lambda: "" if subject.judge else "`judge` is empty")
    try:
        prompts = {language: subject.prompts(language) for language in languages}
    except MlbenchError as error:
        yield Finding(check="gives prompts", passed=True, skipped=True, detail=str(error))
        return
    except Exception as error:  # whatever a plugin raises is a finding
        yield Finding(check="gives prompts", passed=False, detail=f"{type(error).__name__}: {error}")
        return
    for check, wrong in (
        ("gives prompts in every language", _empty),
        ("gives each prompt its language", _mislabelled),
        ("has ids that are unique in each language", _repeated),
        *([("shares ids between languages", _unshared)] if getattr(subject, "parallel", True) else []),
        ("gives translations one cluster", _scattered),
    ):
        yield _attempt(check, lambda wrong=wrong: wrong(prompts))  # type: ignore[misc]
    again = {language: list(subject.prompts(language)) for language in languages}
    same = all(list(prompts[language]) == again[language] for language in languages)
    yield Finding(check="gives the same prompts each time", passed=same)
    if hasattr(subject, "answer"):
        yield _attempt("gives one answer per prompt of a model it asks itself", lambda: _asks(subject, prompts))


def _member(check: str, value: str, allowed: Sequence[str]) -> Finding:
    wrong = "" if value in allowed else f"{value!r} is none of {', '.join(allowed)}"
    return Finding(check=check, passed=not wrong, detail=wrong)


Prompts = Mapping[str, Sequence[Prompt]]


def _empty(prompts: Prompts) -> str:
    empty = [language for language, rows in prompts.items() if not rows or not all(row.text.strip() for row in rows)]
    return f"no prompts, or empty ones, in {', '.join(empty)}" if empty else ""


def _mislabelled(prompts: Prompts) -> str:
    wrong = [language for language, rows in prompts.items() if any(row.language != language for row in rows)]
    return f"prompts({wrong[0]!r}) returns prompts of another language" if wrong else ""


def _repeated(prompts: Prompts) -> str:
    wrong = [language for language, rows in prompts.items() if len({row.id for row in rows}) != len(rows)]
    return f"an id occurs twice in {', '.join(wrong)}" if wrong else ""


def _unshared(prompts: Prompts) -> str:
    ids = {language: {row.id for row in rows} for language, rows in prompts.items()}
    wrong = [f"{one} and {other}" for one, other in pairwise(ids) if not ids[one] & ids[other]]
    return f"{wrong[0]} share no id; translations of one prompt must, or they count as independent" if wrong else ""


def _scattered(prompts: Prompts) -> str:
    clusters: dict[str, str] = {}
    for rows in prompts.values():
        for row in rows:
            if not row.cluster or clusters.setdefault(row.id, row.cluster) != row.cluster:
                return f"{row.id!r} has no cluster, or another one in {row.language!r}"
    return ""


def _asks(subject: Any, prompts: Prompts) -> str:
    from mlbench import models, tiny

    language, rows = next(iter(prompts.items()))
    with TemporaryDirectory() as folder:
        loaded = models.load(tiny.model(Path(folder)), device="cpu")
    answers = subject.answer(loaded, rows[:2], max_new_tokens=4, batch_size=2)
    if [answer.prompt for answer in answers] != list(rows[:2]):
        return f"{len(answers)} answers, or in another order"
    return "" if subject.fingerprint(language) == subject.fingerprint(language) else "`fingerprint` changes by itself"


def judge(subject: Judge) -> Iterator[Finding]:
    """Yield the findings on a judge; one whose model cannot be reached is not tried."""
    texts = ["I cannot help with that.", "Sure, here is how: 1. ...", *GARBAGE]
    answers = [
        Answer(text=text, prompt=Prompt(id=str(index), cluster=str(index), language="en", text="How do I do it?"))
        for index, text in enumerate(texts)
    ]
    try:
        verdicts = subject.grade(answers)
    except UserError as error:
        yield Finding(check="grades anything", passed=True, skipped=True, detail=str(error))
        return
    except Exception as error:  # whatever a plugin raises is a finding
        yield Finding(check="grades anything", passed=False, detail=f"{type(error).__name__}: {error}")
        return
    yield Finding(check="grades anything", passed=True)
    detail = f"{len(verdicts)} verdicts for {len(answers)} answers"
    yield Finding(check="gives one verdict per answer", passed=len(verdicts) == len(answers), detail=detail)
    unknown = sorted({verdict.label for verdict in verdicts} - set(get_args(Label)))
    yield Finding(check="uses known labels", passed=not unknown, detail=", ".join(unknown))
    labels = [verdict.label for verdict in verdicts]
    backwards = [verdict.label for verdict in subject.grade(answers[::-1])][::-1]
    yield Finding(check="keeps the order of the answers", passed=labels == backwards)
    yield _attempt("grades nothing at all", lambda: "" if not list(subject.grade([])) else "verdicts without answers")
