"""Packed online rows: one row of bytes per entity and view, its keys, its databases and its answers."""
