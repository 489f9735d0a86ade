"""TODO playbill.sources.kuairand.source."""
