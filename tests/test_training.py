"""SFT and DPO against loops written out here, and what a fit promises: its batches, its price, its folder."""

import hashlib
import json
import math
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn.functional import logsigmoid

from mlbench import models, tiny, training
from mlbench.core import Checkpoint, Example, Training
from mlbench.corpus import preferences
from mlbench.errors import ConfigError, DataError
from mlbench.training import fit

torch.set_num_threads(1)

ROWS = preferences(tiny.corpus(8), "all", benign=True, rejected=True)
HARMFUL = preferences(tiny.corpus(8), "pivot", benign=False, rejected=True)


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    return tiny.model(tmp_path_factory.mktemp("start"))


def log(folder: Path, **changes: int | float | str) -> tiny.Log:
    return tiny.Log(folder=folder, training=tiny.budget(**changes))


def losses(run: tiny.Log) -> list[float]:
    return [step["loss"] for step in run.curve]


def answer_log_probs(model: Any, tokenizer: Any, row: Example, text: str | None) -> torch.Tensor:
    """Return the log-probability of every token of an answer and of its end."""
    prompt = f"<bos><|user|>{row.prompt}<eos><|assistant|>"
    asked = tokenizer(prompt, add_special_tokens=False)["input_ids"]
    ids = torch.tensor(asked + tokenizer(f"{text}<eos>", add_special_tokens=False)["input_ids"])
    # The template ends the assistant's turn as it ends the user's.
    chat = [{"role": "user", "content": row.prompt}, {"role": "assistant", "content": text}]
    assert tokenizer.apply_chat_template(chat, tokenize=False) == tokenizer.decode(ids)
    each = model(input_ids=ids[None]).logits[0, :-1].log_softmax(-1)
    return each.gather(-1, ids[1:, None])[len(asked) - 1 :, 0]


def plain_loop(start: Checkpoint, plan: fit.Plan, budget: Training, loss: Any) -> list[float]:
    """Return the loss of each step of AdamW with clipping, on one row at a time."""
    loaded = models.load(start, device="cpu")
    reference = models.load(start, device="cpu")
    optimizer = torch.optim.AdamW(loaded.model.parameters(), lr=budget.learning_rate, weight_decay=0.0)
    found = []
    for step in range(budget.steps):
        at = step * budget.batch_size
        rows = [plan.rows[index] for index in plan.order[at : at + budget.batch_size]]
        value = loss(loaded, reference, rows)
        value.backward()
        torch.nn.utils.clip_grad_norm_(loaded.model.parameters(), budget.max_grad_norm)
        optimizer.step()
        optimizer.zero_grad()
        found.append(value.item())
    return found


def sft_loss(loaded: models.Loaded, reference: models.Loaded, rows: list[Example]) -> torch.Tensor:
    each = [answer_log_probs(loaded.model, loaded.tokenizer, row, row.chosen) for row in rows]
    return -torch.cat(each).mean()


def dpo_loss(loaded: models.Loaded, reference: models.Loaded, rows: list[Example]) -> torch.Tensor:
    terms = []
    for row in rows:
        gains = []
        for text in (row.chosen, row.rejected):
            with torch.no_grad():
                before = answer_log_probs(reference.model, loaded.tokenizer, row, text).sum()
            gains.append(answer_log_probs(loaded.model, loaded.tokenizer, row, text).sum() - before)
        terms.append(-logsigmoid(0.1 * (gains[0] - gains[1])))
    return torch.stack(terms).mean()


@pytest.mark.parametrize(("train", "loss"), [(training.sft, sft_loss), (training.dpo, dpo_loss)])
def test_trainer_equals_a_plain_loop(start: Checkpoint, tmp_path: Path, train: Any, loss: Any) -> None:
    run = log(tmp_path, steps=6)
    train(start, ROWS, run)
    expected = plain_loop(start, fit.lay_out(ROWS, run), run.training, loss)
    assert losses(run) == pytest.approx(expected, abs=1e-5)
    assert expected[-1] != pytest.approx(expected[0], abs=1e-4)


def test_dpo_likelihood_term_is_the_mean_over_answer_tokens(start: Checkpoint, tmp_path: Path) -> None:
    run = log(tmp_path, steps=1)
    training.dpo(start, ROWS, run, sft_weight=0.5)
    expected = plain_loop(
        start,
        fit.lay_out(ROWS, run),
        run.training,
        lambda *given: dpo_loss(*given) + 0.5 * sft_loss(*given),
    )
    assert losses(run) == pytest.approx(expected, abs=1e-5)


def test_only_the_answer_and_its_end_are_learnt(
    start: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Any] = []
    monkeypatch.setattr(fit, "finish", lambda trainer, *rest, answers: seen.append(trainer))
    row = Example(id="p", cluster="p", language="en", prompt="hi", harmful=True, chosen="no")
    training.sft(start, [row], log(tmp_path, batch_size=1))
    (trainer,) = seen
    words = trainer.processing_class
    h, i, n, o = (words.convert_tokens_to_ids(letter) for letter in "hino")
    # <bos> <|user|> h i <eos> <|assistant|> n o <eos>
    assert trainer.train_dataset[0]["input_ids"] == [1, 4, h, i, 2, 5, n, o, 2]
    assert trainer.train_dataset[0]["labels"] == [-100] * 6 + [n, o, 2]


@pytest.mark.parametrize("lora_rank", [0, 4])
def test_first_dpo_loss_is_ln_2_also_on_top_of_an_adapter(start: Checkpoint, tmp_path: Path, lora_rank: int) -> None:
    adapted = training.sft(start, ROWS, log(tmp_path / "first", lora_rank=4, learning_rate=1e-2, steps=4))
    for name, model in (("base", start), ("adapted", adapted)):
        run = log(tmp_path / name, lora_rank=lora_rank)
        training.dpo(model, ROWS, run)
        assert losses(run)[0] == pytest.approx(math.log(2), abs=1e-6)


@pytest.mark.parametrize("train", [training.sft, training.dpo])
@pytest.mark.parametrize("lora_rank", [0, 4])
def test_four_micro_batches_of_eight_equal_one_batch_of_32(
    start: Checkpoint, tmp_path: Path, train: Any, lora_rank: int
) -> None:
    whole = log(tmp_path / "whole", batch_size=32, lora_rank=lora_rank)
    parts = log(tmp_path / "parts", batch_size=32, lora_rank=lora_rank, micro_batch=8)
    train(start, ROWS, whole)
    train(start, ROWS, parts)
    assert losses(parts) == pytest.approx(losses(whole), abs=1e-5)
    assert parts.facts["tokens"] == whole.facts["tokens"]


def test_gradient_checkpointing_changes_nothing(start: Checkpoint, tmp_path: Path) -> None:
    for lora_rank in (0, 4):
        runs = []
        for checkpointing in (False, True):
            run = log(tmp_path / f"{lora_rank}-{checkpointing}", lora_rank=lora_rank)
            run.training = replace(run.training, gradient_checkpointing=checkpointing)
            training.dpo(start, ROWS, run)
            runs.append(run)
        assert losses(runs[1]) == pytest.approx(losses(runs[0]), abs=1e-6)


SAME_SEED = """
import sys, torch
from pathlib import Path
from mlbench import tiny, training
from mlbench.corpus import preferences
torch.set_num_threads(1)
folder = Path(sys.argv[1])
rows = preferences(tiny.corpus(8), "all", benign=True, rejected=True)
run = tiny.Log(folder=folder / "run", seed=3, training=tiny.budget(lora_rank=4))
training.dpo(tiny.model(folder / "start"), rows, run)
print([step["loss"].hex() for step in run.curve])
"""


def test_equal_seeds_give_equal_losses_in_another_process_and_other_seeds_do_not(
    start: Checkpoint, tmp_path: Path
) -> None:
    other = subprocess.run(
        [sys.executable, "-c", SAME_SEED, str(tmp_path / "other")], capture_output=True, text=True, check=True
    )
    runs = []
    for seed in (3, 4):
        runs.append(tiny.Log(folder=tmp_path / str(seed), seed=seed, training=tiny.budget(lora_rank=4)))
        training.dpo(start, ROWS, runs[-1])
    assert other.stdout.strip() == str([loss.hex() for loss in losses(runs[0])])
    assert losses(runs[1]) != losses(runs[0])


TWO_PROCESSES = """
import os, sys, torch
from pathlib import Path
from mlbench import plugins, tiny
torch.set_num_threads(1)
folder = Path(sys.argv[1]) / os.environ.get("RANK", "alone")
method = plugins.load("method", "mlc")(every=1, projection_learning_rate=1e-2)
run = tiny.Log(folder=folder, training=tiny.budget(steps=3, batch_size=8))
method.align(tiny.model(folder / "start"), tiny.corpus(), run)
if folder.name != "1":
    print(*(step[name] for step in run.curve for name in ("loss", "mlc/loss", "grad_norm")), run.facts["tokens"])
"""


@pytest.mark.slow
def test_two_processes_train_as_one_does(tmp_path: Path) -> None:
    script = tmp_path / "train.py"
    script.write_text(TWO_PROCESSES)
    found = []
    for launch in ([], ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]):
        command = [sys.executable, *launch, str(script), str(tmp_path / str(len(launch)))]
        output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        found.append([float(value) for value in output.splitlines()[-1].split()])
    assert found[1] == pytest.approx(found[0], abs=1e-5)


def digest(folder: Path) -> str:
    parts = [path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()]
    return hashlib.sha256(b"\0".join(parts)).hexdigest()


def test_full_result_is_a_plain_folder_and_adapter_result_leaves_the_base_alone(
    start: Checkpoint, tmp_path: Path
) -> None:
    before = digest(Path(start.base))
    full = training.sft(start, ROWS, log(tmp_path / "full"))
    lora = training.sft(start, ROWS, log(tmp_path / "lora", lora_rank=4))
    assert full == Checkpoint(base=str(tmp_path / "full" / "model"))
    assert lora == Checkpoint(base=start.base, adapters=(str(tmp_path / "lora" / "adapter"),))
    assert digest(Path(start.base)) == before
    assert {path.name for path in (tmp_path / "full").iterdir()} == {"model"}
    assert json.loads((tmp_path / "lora" / "adapter" / "adapter_config.json").read_text())["r"] == 4


def test_a_second_adapter_is_trained_on_the_first_one_merged(start: Checkpoint, tmp_path: Path) -> None:
    budget = {"lora_rank": 4, "learning_rate": 1e-2, "steps": 4}
    first_run, second_run = log(tmp_path / "one", **budget), log(tmp_path / "two", **budget)
    first = training.sft(start, ROWS, first_run)
    second = training.sft(replace(first, system_prompts={"xa": "be kind"}), ROWS, second_run)
    assert second.adapters == (*first.adapters, str(tmp_path / "two" / "adapter"))
    assert second.system_prompts == {"xa": "be kind"}
    assert losses(second_run)[0] < losses(first_run)[0]


@pytest.mark.parametrize("lora_rank", [0, 4])
def test_price_is_recorded(start: Checkpoint, tmp_path: Path, lora_rank: int) -> None:
    run = log(tmp_path, lora_rank=lora_rank)
    result = training.sft(start, HARMFUL, run)
    old = models.load(start, device="cpu").model.state_dict()
    with fit.quiet():
        new = models.load(result, device="cpu").model.state_dict()
    change = sum((new[name] - old[name]).square().sum().item() for name in old)
    before = sum(weight.square().sum().item() for weight in old.values())
    assert run.facts["weight_change"] == pytest.approx(math.sqrt(change / before), rel=1e-4)
    assert run.facts["steps"] == 2
    assert run.facts["total_parameters"] == sum(weight.numel() for weight in old.values())
    # 8 rows of <bos> <|user|> "en bad 0" <eos> <|assistant|> "en no" <eos>: 4 + 8 + 5 + 1 tokens
    assert run.facts["tokens"] == 8 * 18
    assert run.read == {("en", row.id, True) for row in HARMFUL}


def test_rank_of_the_adapter_counts_its_parameters(start: Checkpoint, tmp_path: Path) -> None:
    runs = [log(tmp_path / str(rank), lora_rank=rank) for rank in (2, 4)]
    for run in runs:
        training.sft(start, HARMFUL, run)
    assert runs[1].facts["trainable_parameters"] == 2 * float(runs[0].facts["trainable_parameters"])


def test_a_row_longer_than_max_length_is_refused_and_named(start: Checkpoint, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"row 'p\d' in '..' has \d+ tokens, more than max_length = 12"):
        training.sft(start, ROWS, log(tmp_path, max_length=12))


def test_an_answer_without_tokens_is_refused_rather_than_dropped(start: Checkpoint, tmp_path: Path) -> None:
    run = log(tmp_path)
    plan = fit.lay_out(ROWS, run)

    class Short:
        train_dataset = plan.rows[:-1]

    with pytest.raises(DataError, match=f"1 of {len(plan.rows)} training rows have no token to learn from"):
        fit.finish(Short(), plan, start, run, answers=True)  # type: ignore[arg-type]


def test_every_row_is_seen_once_before_any_is_seen_twice() -> None:
    order = fit.draw(5, 12, seed=0)
    assert sorted(order[:5]) == sorted(order[5:10]) == [0, 1, 2, 3, 4]
    assert len(order) == 12
    assert order != fit.draw(5, 12, seed=1)


def test_rows_beyond_the_budget_are_not_read(tmp_path: Path) -> None:
    plan = fit.lay_out(ROWS, log(tmp_path, steps=2, batch_size=3))
    assert len(plan.rows) == 6
    assert plan.order == [0, 1, 2, 3, 4, 5]


@pytest.mark.parametrize(
    ("batch_size", "micro_batch", "devices", "expected"),
    [
        (32, 0, 1, (32, 1)),  # the whole batch
        (32, 8, 1, (8, 4)),
        (10, 4, 1, (2, 5)),  # the largest divisor that is allowed
        (32, 8, 4, (8, 1)),  # eight rows per device
        (32, 64, 2, (16, 1)),
    ],
)
def test_batch_is_the_same_whatever_the_devices(
    monkeypatch: pytest.MonkeyPatch, batch_size: int, micro_batch: int, devices: int, expected: tuple[int, int]
) -> None:
    monkeypatch.setitem(os.environ, "WORLD_SIZE", str(devices))
    assert fit.split_batch(Training(batch_size=batch_size, micro_batch=micro_batch)) == expected


def test_a_batch_that_devices_cannot_share_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(os.environ, "WORLD_SIZE", "3")
    with pytest.raises(ConfigError, match="batch_size = 32 cannot be shared out between 3 devices"):
        fit.split_batch(Training())


def test_preferences_take_the_languages_asked_for() -> None:
    corpus = tiny.corpus(4)
    assert {row.language for row in preferences(corpus, "pivot", benign=True, rejected=True)} == {"en"}
    assert {row.language for row in preferences(corpus, ("xb",), benign=True, rejected=True)} == {"xb"}
    assert all(row.harmful for row in preferences(corpus, "all", benign=False, rejected=True))
    with pytest.raises(ConfigError, match="'fr' is not in the training corpus"):
        preferences(corpus, ("fr",), benign=True, rejected=True)


def test_a_language_without_answers_is_refused() -> None:
    corpus = tiny.corpus(4)
    bare = tuple(replace(row, chosen=None) if row.language == "xa" else row for row in corpus.examples)
    with pytest.raises(DataError, match="no answers to train on in 'xa'"):
        preferences(replace(corpus, examples=bare), "all", benign=True, rejected=True)
