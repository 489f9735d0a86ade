"""Training sets on disk."""
