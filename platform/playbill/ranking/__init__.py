"""Scores to lists: bundles, the scorer, candidates, blends, fallbacks and rows."""
