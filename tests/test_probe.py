"""Measures of representations, against numbers computed by hand."""

import pytest
import torch

from mlbench import probe
from mlbench.errors import DataError
from mlbench.store import Store
from tests.conftest import Bench

# Two harmful prompts, then two harmless ones.
PIVOT = torch.tensor([[2.0, 0.0], [2.0, 2.0], [0.0, 2.0], [-2.0, 0.0]])
IDS = ["h1", "h2", "b1", "b2"]


def test_the_pivot_agrees_with_itself() -> None:
    found = probe.measure(PIVOT, PIVOT, 2, 2, [IDS, IDS])
    assert found["pivot_cosine"] == pytest.approx(1.0)
    assert found["transfer"] == pytest.approx(1.0)


def test_measures_of_a_language_half_as_separated_as_the_pivot() -> None:
    here = PIVOT / 2 + torch.tensor([3.0, 3.0])  # the same differences, halved, elsewhere
    found = probe.measure(here, PIVOT, 2, 2, [IDS, IDS])
    # Means (2, 1) and (-1, 1) in the pivot: direction (3, 0); here the gap is (1.5, 0): 4.5 / 9.
    assert found["transfer"] == pytest.approx(0.5)
    # Rows (4,3) (4,4) (3,4) (2,3) against (1,0) (1,1)/sqrt2 (0,1) (-1,0): 4/5, 1, 4/5, -2/sqrt13.
    assert found["pivot_cosine"] == pytest.approx((0.8 + 1.0 + 0.8 - 2 / 13**0.5) / 4)


def test_translations_are_found_by_their_id_whatever_their_order() -> None:
    order = [1, 0, 3, 2]
    swapped = [IDS[place] for place in order]
    assert probe.measure(PIVOT[order], PIVOT, 2, 2, [swapped, IDS])["pivot_cosine"] == pytest.approx(1.0)


def test_a_run_without_harmless_prompts_is_refused_by_name(bench: Bench) -> None:
    from mlbench import verbs
    from mlbench.results import frames

    verbs.run(bench.write(methods=["none"]), inline=True)
    root = bench.folder / "run"
    with pytest.raises(DataError, match="no over_refusal task in the pivot 'en'"):
        probe.probe(frames.read_plan(root), Store(root), lambda stage, done, total: None)
    assert bench.mlbench("probe", root).returncode == 2
