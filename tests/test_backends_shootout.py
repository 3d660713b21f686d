"""Backends and samples in a shootout: what is refused, which answers are shared, and whole runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from mlbench import planner, shootout, verbs
from mlbench.errors import ConfigError
from mlbench.store import Store

from .conftest import Bench
from .stand import Stand, echo

torch.set_num_threads(1)


def test_a_shootout_is_answered_by_a_server(bench: Bench) -> None:
    with Stand(behave=echo) as stand:
        server = {"server_url": stand.url, "server_model": "mine", "temperature": 0.5, "n": 2}
        settings = {"generation": {"max_new_tokens": 4, "batch_size": 3, **server}, "tracking": {"enabled": False}}
        path = bench.write(methods=["none"], **settings)
        outcome = verbs.run(path, inline=True)
    assert outcome.exit_code == 0
    assert len(stand.bodies) == 3 * 4 * 2  # languages, prompts, samples
    store = Store(bench.folder / "run")
    made = verbs.make_plan(path)
    for cell in made.cells:
        answers = store.answers(cell.answer_key, made.jobs[cell.answer_key].spec["prompts"])
        assert [answer.sample for answer in answers] == [0, 1] * 4
        assert store.status(cell.answer_key).facts["backend"] == "server"
    assert outcome.results is not None
    assert (outcome.results.cells["n"] == 8).all() and outcome.results.cells["complete"].all()


def test_a_shootout_with_samples_keeps_every_one_of_them(bench: Bench) -> None:
    generation = {"max_new_tokens": 4, "batch_size": 8, "n": 3, "temperature": 1.0, "seed": 1}
    path = bench.write(methods=["none"], generation=generation, tracking={"enabled": False})
    outcome = verbs.run(path, inline=True)
    assert outcome.results is not None
    assert (outcome.results.cells["n"] == 12).all() and (outcome.results.cells["clusters"] == 4).all()


def plan(bench: Bench, **changes: Any) -> Any:
    return planner.make(shootout.load(bench.write(**changes)))


@pytest.mark.parametrize(
    ("generation", "more", "words"),
    [
        ({"n": 2}, {}, "generation.n: `n` needs a `temperature` above 0"),
        ({"top_p": 0.9}, {}, "generation.top_p: `top_p` needs a `temperature` above 0"),
        ({"temperature": -1}, {}, "generation.temperature"),
        ({"backend": "server"}, {}, "the backend `server` needs `server_url`"),
        ({"server_url": "http://x/v1"}, {}, "needs `server_model`"),
        ({"backend": "transformers", "server_url": "http://x/v1"}, {}, "`server_url` is for the backend `server`"),
        ({"api_key_env": "KEY"}, {}, "`api_key_env` is for the backend `server`"),
        ({"server_url": "http://me:pass@x/v1"}, {}, "generation.server_url"),
        ({"server_url": "http://x/v1", "server_model": "m"}, {}, "'sft' changes weights, which a running server"),
        (
            {"server_url": "http://x/v1", "server_model": "m", "api_key_env": "NO_SUCH_KEY"},
            {"methods": ["none"]},
            "environment variable NO_SUCH_KEY is not set",
        ),
        ({"backend": "continuous"}, {}, "runs on a GPU, and `schedule.gpus` gives its jobs none"),
        ({"backend": "vllm"}, {"schedule": {"gpus": 1}}, "vLLM is not installed"),
    ],
)
def test_generation_that_cannot_work_is_refused_before_anything_runs(
    bench: Bench, generation: dict[str, Any], more: dict[str, Any], words: str
) -> None:
    with pytest.raises(ConfigError) as refused:
        plan(bench, generation=generation, **more)
    assert words in str(refused.value)
    assert f"{bench.folder / 'tiny.yaml'}:" in str(refused.value)


def test_several_models_cannot_be_one_server(bench: Bench, tmp_path: Path) -> None:
    twice = [str(bench.folder / "model"), {"source": str(bench.folder / "model"), "name": "again"}]
    server = {"server_url": "http://127.0.0.1:1/v1", "server_model": "m"}
    with pytest.raises(ConfigError, match="a server answers as one model"):
        plan(bench, models=twice, methods=["none"], generation=server)


def keys(bench: Bench, **generation: Any) -> set[str]:
    made = plan(bench, methods=["none"], generation={"max_new_tokens": 4, **generation})
    return {cell.answer_key for cell in made.cells}


def test_answers_are_shared_exactly_where_they_would_be_the_same(bench: Bench) -> None:
    greedy = keys(bench)
    for same in ({"backend": "transformers"}, {"seed": 5}, {"batch_size": 3}):
        assert keys(bench, **same) == greedy
    server = {"server_url": "http://127.0.0.1:1/v1", "server_model": "m"}
    others = [
        {"system_prompt": "be brief"},
        {"temperature": 1},
        {"temperature": 1, "seed": 5},
        {"temperature": 1, "n": 2},
        {"temperature": 1, "top_p": 0.5},
        server,
        {**server, "server_model": "other"},
    ]
    found = [keys(bench, **other) for other in others]
    assert len(set().union(greedy, *found)) == len(greedy) * (1 + len(others))
