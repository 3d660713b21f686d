"""What the tests of the methods share: the start models, and a training on the tiny corpus."""

from pathlib import Path

import pytest
import torch
from mlbench_methods.sft import SFT

from mlbench import tiny
from mlbench.core import Checkpoint, Method
from mlbench.corpus import view

torch.set_num_threads(1)


@pytest.fixture(scope="session")
def start(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    """Return a random model; nobody may write into its folder."""
    return tiny.model(tmp_path_factory.mktemp("start"))


@pytest.fixture(scope="session")
def refuser(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    """Return a model that refuses in the pivot language more readily than in the others."""
    random = tiny.model(tmp_path_factory.mktemp("random"))
    run = tiny.Log(folder=tmp_path_factory.mktemp("refuser"), training=tiny.budget(steps=12, learning_rate=3e-3))
    return SFT(benign=False).align(random, view(tiny.corpus(), SFT(benign=False).needs), run)


def trained(method: Method, start: Checkpoint, folder: Path, **changes: int | float) -> tiny.Log:
    """Return what a training of three steps on the tiny corpus has told; `changes` are those of its budget."""
    run = tiny.Log(folder=folder, training=tiny.budget(**{"steps": 3} | changes))
    method.align(start, view(tiny.corpus(), method.needs), run)
    return run


def weights(run: tiny.Log) -> list[bytes]:
    """Return the files of tensors that a run has written, in the order of their names."""
    return [path.read_bytes() for path in sorted(run.folder.rglob("*.safetensors"))]
