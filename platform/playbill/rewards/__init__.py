"""Outcomes -> rewards: what a recommendation was worth, and what it will be worth once its outcomes are known."""
