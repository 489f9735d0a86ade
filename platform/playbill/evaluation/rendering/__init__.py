"""TODO playbill.evaluation.rendering."""
