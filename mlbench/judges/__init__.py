"""Judges, one public module each."""
