"""Rows to indices and numbers: what is fitted on the train fold and kept with a model."""
