"""From tables to pages: HTML, Markdown, CSV files and a table for the terminal."""

from mlbench.report.files import write
from mlbench.report.info import Curve, JudgeCheck, MethodInfo, ModelInfo, RunInfo, TaskInfo
from mlbench.report.terminal import terminal, verdicts
from mlbench.report.versus import Half, Versus, summary
from mlbench.report.versus import write as write_versus

__all__ = [
    "Curve",
    "Half",
    "JudgeCheck",
    "MethodInfo",
    "ModelInfo",
    "RunInfo",
    "TaskInfo",
    "Versus",
    "summary",
    "terminal",
    "verdicts",
    "write",
    "write_versus",
]
