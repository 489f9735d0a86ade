"""TODO playbill.datasets.encoding."""
