"""TODO playbill.evaluation.canvases."""
