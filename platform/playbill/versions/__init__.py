"""Registered versions: MLflow, and which of them is approved."""
