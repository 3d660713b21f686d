"""Evaluation tasks, one public module each."""
