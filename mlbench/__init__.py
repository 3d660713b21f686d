"""mlbench: which method makes a language model safe in every language, and at what price?

The verbs of the command line are functions here: `mlbench.run("shootout.yaml")` returns paths and data frames.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mlbench.reporting import write_report
    from mlbench.verbs import make_plan, run

__version__ = "0.1.0"
__all__ = ["__version__", "make_plan", "run", "write_report"]


def __getattr__(name: str) -> Any:
    """Import a verb when it is first used: `import mlbench` itself stays instant."""
    if name in __all__:
        from mlbench import reporting, verbs

        return getattr(reporting if name == "write_report" else verbs, name)
    raise AttributeError(f"module 'mlbench' has no attribute {name!r}")
