"""TODO playbill.datasets.export.write."""
