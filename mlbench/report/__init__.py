"""From tables to pages: HTML, Markdown, CSV files and a table for the terminal."""

from mlbench.report.page import MethodInfo, ModelInfo, RunInfo, TaskInfo, terminal, verdicts, write

__all__ = ["MethodInfo", "ModelInfo", "RunInfo", "TaskInfo", "terminal", "verdicts", "write"]
