"""TODO playbill.datasets.examples.selection."""
