"""The lab's commands, which `playbill` finds by entry points."""

from playbill.cli.commands import Command

SIMULATE = Command(
    "playbill_lab.cli.simulate:simulate", summary="Fill the workspace with the log of a simulated service."
)
EXPERIMENT = Command("playbill_lab.cli.experiment:experiment", summary="Compare models online in a simulated service.")
LEDGER = Command(
    "playbill_lab.cli.ledger:ledger", summary="Compare one model of every canvas with the separate models it replaces."
)
FRESHNESS = Command(
    "playbill_lab.cli.freshness:freshness", summary="Measure what a model loses while it waits for an update."
)
