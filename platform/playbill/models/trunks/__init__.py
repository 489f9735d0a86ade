"""TODO playbill.models.trunks."""
