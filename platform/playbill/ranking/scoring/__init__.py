"""TODO playbill.ranking.scoring."""
