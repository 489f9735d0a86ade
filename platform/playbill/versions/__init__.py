"""TODO playbill.versions."""
