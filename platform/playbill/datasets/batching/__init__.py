"""TODO playbill.datasets.batching."""
