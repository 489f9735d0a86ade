"""`playbill rewards`: what rewards say, and how well their delayed terms are told."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from playbill.cli.main import Selection

if TYPE_CHECKING:
    from playbill.definitions.specs import LabelSpec, RewardSpec
    from playbill.definitions.zoo import Zoo
    from playbill.rewards import DelayedReport, RewardDescription

_JSON = click.option("--json", "as_json", is_flag=True, help="Print one JSON object as the last line.")


@click.group("rewards")
def rewards() -> None:
    """Say what rewards are made of, and how well their delayed terms are predicted.

    Example: playbill rewards explain
    """


@rewards.command("explain")
@click.option("--reward", "names", multiple=True, metavar="REWARD", help="Which rewards (default: all). Repeatable.")
@_JSON
@click.pass_obj
def explain(selection: Selection, names: Sequence[str], as_json: bool) -> None:
    """Say what each reward counts, when it is final, its id, and what learns from it or is judged by it.

    Example: playbill rewards explain --reward long_term
    """
    from playbill.definitions.zoo import open_zoo
    from playbill.rewards import describe_reward

    zoo = open_zoo(selection.folder.model_zoo)
    wanted = [zoo.reward(name) for name in dict.fromkeys(names or zoo.rewards)]
    found = [(describe_reward(*reward), _users(zoo, reward[0])) for reward in wanted]
    if as_json:
        listed = [{**_plain(reward), "used_by": users} for reward, users in found]
        click.echo(json.dumps({"rewards": listed}))
    else:
        _show(found)


@rewards.command("delayed")
@click.argument("reward")
@click.option("--as-of", metavar="MOMENT", help="What is known then (default: the workspace's clock).")
@click.option("--split", metavar="MOMENT", help="Learn from what was final then (default: two thirds of what can be).")
@click.option("--plot", type=click.Path(dir_okay=False, path_type=Path), help="Picture by age, .svg or .png.")
@_JSON
@click.pass_obj
def delayed(
    selection: Selection, reward: str, as_of: str | None, split: str | None, plot: Path | None, as_json: bool
) -> None:
    """Measure how well the delayed terms of a reward are predicted at each age, on plays later than the training data.

    Example: playbill -w simulated rewards delayed long_term --json
    """
    from playbill.clock import parse_moment
    from playbill.definitions.specs import reward_version
    from playbill.definitions.zoo import open_zoo
    from playbill.rewards.reports import plot_delayed
    from playbill.tables import Tables, workspace_clock

    spec, labels = open_zoo(selection.folder.model_zoo).reward(reward)
    _require_delayed(spec)
    tables = Tables(selection.workspace).require()
    moment = parse_moment(as_of) if as_of else workspace_clock(selection.workspace).now()
    report = _measured(spec, labels, tables, moment, parse_moment(split) if split else None)
    if plot is not None:
        plot_delayed(report, plot)
    version = reward_version(spec, labels)
    if as_json:
        head = {"reward": version, "as_of": moment.isoformat(), "split": report.split.isoformat()}
        improves = {term: report.improves(term) for term in report.rows["term"].unique(maintain_order=True)}
        click.echo(json.dumps({**head, "improves": improves, "rows": report.rows.fill_nan(None).to_dicts()}))
    else:
        _show_delayed(version, report)


def _require_delayed(reward: RewardSpec) -> None:
    from playbill.errors import StateError

    if not reward.delayed:
        raise StateError(f"reward '{reward.name}' has no delayed term, so nothing of it is predicted")


def _measured(
    reward: RewardSpec, labels: dict[str, LabelSpec], tables: Any, as_of: datetime, split: datetime | None
) -> DelayedReport:
    from playbill.cli.progress import Stages
    from playbill.labels import label_events
    from playbill.rewards import delayed_report

    with Stages() as stages:
        stages.stage("labelling")
        log, availability = tables.interactions(), tables.availability()
        outcomes = label_events(list(labels.values()), log, as_of, availability, tables.titles())
        stages.stage("fit and predict")
        moment = split or _two_thirds(reward, labels, log["event_at"].min(), as_of)
        return delayed_report(reward, labels, outcomes, log, as_of, moment, availability)


def _two_thirds(reward: RewardSpec, labels: dict[str, LabelSpec], begins: datetime, as_of: datetime) -> datetime:
    """Return the moment up to which two thirds of the time can be learnt from whose plays are final at the end."""
    from playbill.rewards import describe_reward

    terms = describe_reward(reward, labels).terms
    slowest = max((term.final_after for term in terms if term.delayed), default=timedelta(0))
    return as_of - slowest - max(timedelta(0), as_of - begins - 2 * slowest) / 3


def _users(zoo: Zoo, reward: RewardSpec) -> list[str]:
    """Return the heads that learn by a reward, and the models that are judged by it."""
    found = []
    for model in zoo.models.values():
        heads = [name for name, head in model.heads.items() if head.reward and _is(zoo, head.reward, reward)]
        found += [f"head {name} of {model.name} learns by it" for name in heads]
        if model.evaluate.reward and _is(zoo, model.evaluate.reward, reward):
            found.append(f"{model.name} is judged by it")
    return found


def _is(zoo: Zoo, reference: str, reward: RewardSpec) -> bool:
    return zoo.reward(reference)[0] == reward


def _plain(reward: RewardDescription) -> dict[str, Any]:
    from playbill.definitions.specs.base import format_duration

    found = asdict(reward) | {"final_after": format_duration(reward.final_after)}
    terms = [asdict(term) | {"final_after": format_duration(term.final_after)} for term in reward.terms]
    return {**found, "terms": terms}


def _show(found: Sequence[tuple[RewardDescription, Sequence[str]]]) -> None:
    from rich import box
    from rich.table import Table

    from playbill.cli.console import Console
    from playbill.definitions.specs.base import format_duration

    for reward, users in found:
        bounds = "" if reward.clip is None else f", from {reward.clip[0]:g} to {reward.clip[1]:g}"
        title = f"{reward.id}, final after {format_duration(reward.final_after)}{bounds}"
        table = Table("label", title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
        for column in ("1", "0"):
            table.add_column(column, justify="right")
        for column in ("of", "counts for", "final after", "until then"):
            table.add_column(column)
        for term in reward.terms:
            worth = (f"{term.weight:+g}", f"{term.otherwise:+g}" if term.otherwise else "")
            waits = "" if not term.final_after else "predicted" if term.delayed else "as known"
            of = " and ".join(f"{action}s" for action in term.of)
            table.add_row(term.label, *worth, of, term.counts_for, format_duration(term.final_after), waits)
        Console().print(table)
        click.echo("\n".join(f"  {user}" for user in users) or "  no model uses it")
        click.echo()


def _show_delayed(version: str, report: DelayedReport) -> None:
    from rich import box
    from rich.table import Table

    from playbill.cli.console import Console

    title = f"{version}: fitted on outcomes final by {report.split:%Y-%m-%d %H:%M} UTC, tested on later plays"
    table = Table("term", title=title, box=box.SIMPLE_HEAD, pad_edge=False)
    for column in ("age, h", "plays", "ones", "AUC", "log loss", "of the mean", "calibration error"):
        table.add_column(column, justify="right")
    for row in report.rows.iter_rows(named=True):
        shares = (f"{row['positives']:.3f}", f"{row['auc']:.4f}", f"{row['log_loss']:.4f}")
        rest = (f"{row['base_log_loss']:.4f}", f"{row['ece']:.4f}")
        table.add_row(row["term"], f"{row['age_h']:g}", f"{row['plays']:,}", *shares, *rest)
    Console().print(table)
