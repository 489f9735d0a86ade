"""Whole studies: several models or policies, one question, and what came out."""
