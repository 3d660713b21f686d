"""From the rows of a run folder to the tables that a report shows."""

from mlbench.results.design import Design
from mlbench.results.tables import Results, compute, rates

__all__ = ["Design", "Results", "compute", "rates"]
