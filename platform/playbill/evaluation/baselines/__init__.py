"""TODO playbill.evaluation.baselines.popularity."""
