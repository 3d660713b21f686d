"""From the rows of a run folder to the tables that a report shows."""

from mlbench.results.tables import Design, Results, compute

__all__ = ["Design", "Results", "compute"]
