"""Feast stores that work in any Feast project: point-in-time joins, packed online rows, and suites to test stores."""
