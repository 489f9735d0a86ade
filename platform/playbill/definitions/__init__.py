"""TODO playbill.definitions."""
