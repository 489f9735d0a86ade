"""The subcommands by name, without importing any: those of Playbill, and those that other packages add."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib.metadata import entry_points

from playbill.errors import DuplicateNameError

GROUP = "playbill.commands"
"""Entry points of this group name a `Command`; its module is imported for `playbill --help`, so it must be light."""


@dataclass(frozen=True, slots=True)
class Command:
    """One subcommand: where it is as `module:attribute`, and the line that `--help` shows."""

    path: str
    summary: str


_COMMANDS = {
    "quickstart": Command("playbill.cli.quickstart:quickstart", "From nothing to a served model in one command."),
    "init": Command("playbill.cli.project:init", "Start a project: playbill.toml, model_zoo/ and feature_repo/."),
    "doctor": Command("playbill.cli.doctor:doctor", "Say what is installed, reachable, and missing."),
    "status": Command("playbill.cli.project:status", "Say what this workspace holds and which model is served."),
    "up": Command("playbill.cli.serve:up", "Start the MLflow UI and the server together."),
    "ingest": Command(
        "playbill.cli.ingest:ingest", "Bring outside data into the canonical tables, or append what arrives later."
    ),
    "check": Command("playbill.cli.check:check", "Check every definition, and report every mistake at once."),
    "impact": Command("playbill.cli.impact:impact", "Say what depends on what: definitions, features, versions."),
    "schema": Command("playbill.cli.check:schema", "Write the JSON schemas that editors complete YAML from."),
    "apply": Command("playbill.cli.features:apply", "Register feature_repo/ in this workspace's Feast registry."),
    "features": Command("playbill.cli.features:features", "Compute feature values from the event log."),
    "labels": Command(
        "playbill.cli.labels:labels", "Explain labels, count their values in the event log, and publish them."
    ),
    "rewards": Command(
        "playbill.cli.rewards:rewards", "Explain rewards, and measure how well their delayed terms are predicted."
    ),
    "materialize": Command("playbill.cli.features:materialize", "Load the newest values into the online store."),
    "dataset": Command("playbill.cli.dataset:dataset", "Write a model's training set to disk, and look at one."),
    "parity": Command("playbill.cli.features:parity", "Compare served features with what training sees."),
    "train": Command("playbill.cli.train:train", "Train a model and register it in MLflow."),
    "evaluate": Command("playbill.cli.evaluate:evaluate", "Measure a model version under a named protocol."),
    "offpolicy": Command(
        "playbill.cli.off_policy:offpolicy", "Judge a model from the log of the policy that was served."
    ),
    "promote": Command("playbill.cli.promotion:promote", "Make a version the champion, if its gates pass."),
    "rollback": Command("playbill.cli.promotion:rollback", "Put the previous champion back."),
    "controller": Command("playbill.cli.promotion:controller", "Watch aliases, check gates, approve versions."),
    "serve": Command("playbill.cli.serve:serve", "Answer recommendation requests over HTTP."),
    "recommend": Command("playbill.cli.recommend:recommend", "Answer one request in the shell."),
}


@cache
def commands() -> dict[str, Command]:
    """Return every subcommand in the order of `--help`.

    Raises:
        DuplicateNameError: A package claims the name of another's command.
    """
    found, owners = dict(_COMMANDS), dict.fromkeys(_COMMANDS, "playbill")
    for point in sorted(entry_points(group=GROUP), key=lambda point: point.name):
        if point.name in found:
            raise DuplicateNameError("command", point.name, owners[point.name], point.value)
        found[point.name], owners[point.name] = point.load(), point.value
    return found
