"""Windows of histories, targets and batches."""
