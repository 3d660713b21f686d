"""Alignment methods, one public module each."""
