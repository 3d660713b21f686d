"""The critical-difference diagram: what it says, and that its names can be read."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from mlbench import stats
from mlbench.report.canvas import THEME
from mlbench.report.diagrams import BAR, critical_difference, draw_critical_difference
from mlbench.results.blocks import Blocks


def ranked(methods: list[str], count: int, step: float) -> Blocks:
    """Return blocks in which each method is by `step` standard deviations worse than the one before."""
    rates = np.random.default_rng(0).normal(size=(count, len(methods))) + step * np.arange(len(methods))
    found = stats.rank_blocks(rates)
    mean = pd.Series(found.ranks.mean(axis=0), index=methods).sort_values(kind="stable")
    return Blocks(
        mean_ranks=mean.rename_axis("method").rename("mean_rank").reset_index(),
        pairs=pd.DataFrame(found.pairs, methods, methods).loc[mean.index, mean.index],
        critical_difference=found.critical_difference,
        count=count,
        picture_only=count < 8,
    )


def test_few_blocks_are_called_a_picture() -> None:
    few, many = (critical_difference(ranked(["x", "y<b>", "z$1$ {q}"], count, 1.0)) for count in (7, 8))
    assert "(picture only: 7 blocks)" in few
    assert "picture only" not in many and "(8 blocks)" in many
    assert few.startswith("<svg role=") and "y&lt;b&gt;" in few and "z$1$ {q}" in few
    assert not any(colour in few for colour in THEME)


def test_without_ranks_there_is_no_diagram() -> None:
    assert critical_difference(Blocks()) == ""


@pytest.mark.parametrize(("count", "step"), [(2, 5.0), (3, 0.0), (10, 0.5), (40, 0.3)])
def test_names_of_eighteen_methods_do_not_cover_each_other(count: int, step: float) -> None:
    names = [f"method-{at} (reconstruction)" for at in range(18)]
    figure = draw_critical_difference(ranked(names, count, step))
    assert figure is not None
    figure.draw_without_rendering()
    (axes,) = figure.axes
    boxes = [text.get_window_extent() for text in [*axes.texts, *axes.get_xticklabels(), axes.title] if text.get_text()]
    assert sum("method-" in text.get_text() for text in axes.texts) == 18
    for at, box in enumerate(boxes):
        assert not box.count_overlaps(boxes[:at])
        assert figure.bbox.x0 <= box.x0 and box.x1 <= figure.bbox.x1


def test_bars_join_the_methods_that_cannot_be_told_apart() -> None:
    blocks = ranked(["a", "b", "c", "d", "e"], 20, 0.5)
    figure = draw_critical_difference(blocks)
    assert figure is not None
    *bars, scale = [
        sorted(map(float, line.get_xdata())) for line in figure.axes[0].lines if line.get_linewidth() == BAR
    ]
    assert scale == [1, 1 + blocks.critical_difference]
    rank = blocks.mean_ranks.set_index("method")["mean_rank"]
    pairs = [(one, two) for one in rank.index for two in rank.index if rank[one] < rank[two]]
    joined = [any(bar[0] <= rank[one] and rank[two] <= bar[-1] for bar in bars) for one, two in pairs]
    assert joined == [blocks.pairs.loc[one, two] >= 0.05 for one, two in pairs]
    assert 0 < sum(joined) < len(pairs)
