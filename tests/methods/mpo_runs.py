"""What several tests of MPO need: the forms of its retain term, and the pivot's side of a row."""

from mlbench.core import Corpus, Example

FORMS = ("masked_mean", "official", "paper")


def pivot_of(corpus: Corpus, row: Example) -> Example:
    """Return the row in the pivot language that a row is a translation of."""
    return next(each for each in corpus.rows(corpus.pivot) if each.id == row.id)
