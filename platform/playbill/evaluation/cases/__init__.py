"""TODO playbill.evaluation.cases.case."""
