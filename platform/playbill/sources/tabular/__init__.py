"""TODO playbill.sources.tabular."""
