"""Plugins of a stranger."""
