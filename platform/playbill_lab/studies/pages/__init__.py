"""Whole pages: what a choice of rows earns."""
