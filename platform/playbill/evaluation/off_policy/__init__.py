"""TODO playbill.evaluation.off_policy.evaluate."""
