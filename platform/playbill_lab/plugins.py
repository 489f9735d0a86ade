"""What the lab adds to Playbill's registries by entry points."""

from playbill.registry import Plugin

SIMULATED_TRUTH = Plugin("playbill_lab.simulator.engine.true_plays:truth_of")
"""The ceiling of simulated logs, for the group `playbill.truths`."""
