"""Playbill: one recommender for every canvas."""

__version__ = "0.1.0"
