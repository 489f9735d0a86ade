"""The subcommands by name, without importing any: those of Playbill, and those that other packages add."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from playbill.errors import ConfigError
from playbill.registry import Plugin, Registry


@dataclass(frozen=True, slots=True)
class Command(Plugin):
    """One subcommand: where it is as `module:attribute`, and the line that `--help` shows."""

    summary: str = field(default="", kw_only=True)


_OWN = {
    "quickstart": Command(
        "playbill.cli.quickstart:quickstart", summary="From nothing to a served model in one command."
    ),
    "init": Command(
        "playbill.cli.project:init", summary="Start a project: playbill.toml, model_zoo/ and feature_repo/."
    ),
    "doctor": Command("playbill.cli.doctor:doctor", summary="Say what is installed, reachable, and missing."),
    "status": Command(
        "playbill.cli.project:status", summary="Say what this workspace holds and which model is served."
    ),
    "up": Command("playbill.cli.serve:up", summary="Start the MLflow UI and the server together."),
    "ingest": Command(
        "playbill.cli.ingest:ingest",
        summary="Bring outside data into the canonical tables, or append what arrives later.",
    ),
    "check": Command("playbill.cli.check:check", summary="Check every definition, and report every mistake at once."),
    "impact": Command(
        "playbill.cli.impact:impact", summary="Say what depends on what: definitions, features, versions."
    ),
    "schema": Command("playbill.cli.check:schema", summary="Write the JSON schemas that editors complete YAML from."),
    "apply": Command(
        "playbill.cli.features:apply", summary="Register feature_repo/ in this workspace's Feast registry."
    ),
    "features": Command("playbill.cli.features:features", summary="Compute feature values from the event log."),
    "labels": Command(
        "playbill.cli.labels:labels", summary="Explain labels, count their values in the event log, and publish them."
    ),
    "rewards": Command(
        "playbill.cli.rewards:rewards",
        summary="Explain rewards, and measure how well their delayed terms are predicted.",
    ),
    "materialize": Command(
        "playbill.cli.features:materialize", summary="Load the newest values into the online store."
    ),
    "dataset": Command(
        "playbill.cli.dataset:dataset", summary="Write a model's training set to disk, and look at one."
    ),
    "parity": Command("playbill.cli.features:parity", summary="Compare served features with what training sees."),
    "train": Command("playbill.cli.train:train", summary="Train a model and register it in MLflow."),
    "update": Command("playbill.cli.update:update", summary="Train a champion on with the events that came since."),
    "pretrain": Command(
        "playbill.cli.pretrain:pretrain", summary="Train a foundation model, and publish its vectors for others."
    ),
    "ensemble": Command(
        "playbill.cli.ensemble:ensemble", summary="Learn which models and terms to trust where, as one version."
    ),
    "adapt": Command("playbill.cli.adapt:adapt", summary="Give countries weights of their own beside a version."),
    "vectors": Command(
        "playbill.cli.vectors:vectors", summary="Publish a version's vectors of members and titles for other models."
    ),
    "evaluate": Command("playbill.cli.evaluate:evaluate", summary="Measure a model version under a named protocol."),
    "diagnose": Command(
        "playbill.cli.diagnose:diagnose", summary="Find the countries in which a model fails, and why."
    ),
    "offpolicy": Command(
        "playbill.cli.off_policy:offpolicy", summary="Judge a model from the log of the policy that was served."
    ),
    "promote": Command("playbill.cli.promotion:promote", summary="Make a version the champion, if its gates pass."),
    "rollback": Command("playbill.cli.promotion:rollback", summary="Put the previous champion back."),
    "controller": Command("playbill.cli.promotion:controller", summary="Watch aliases, check gates, approve versions."),
    "serve": Command("playbill.cli.serve:serve", summary="Answer recommendation requests over HTTP."),
    "recommend": Command("playbill.cli.recommend:recommend", summary="Answer one request in the shell."),
}
COMMANDS = Registry("command", "playbill.commands", _OWN)
"""Outside packages name a `Command` by an entry point; its module is imported for `playbill --help`, so it must be
light."""


def names() -> tuple[str, ...]:
    """Return the names in the order of a user's day, then those of other packages.

    Raises:
        DuplicateNameError: Two packages claim one name.
    """
    return (*_OWN, *(name for name in COMMANDS.names() if name not in _OWN))


def summaries() -> Iterator[tuple[str, str]]:
    """Yield name and line of every command; of one that cannot be loaded, why."""
    for name in names():
        try:
            yield name, getattr(COMMANDS[name], "summary", "")
        except ConfigError as error:
            yield name, f"not available: {error}"
