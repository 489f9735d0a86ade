"""Heads that learn what is chosen within a time: their targets against a plain loop over the log."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import numpy as np
import polars as pl
import pytest

from fixtures import shown_service as service
from playbill.datasets import TrainingSet, build_training_set, make_split
from playbill.datasets.batching.horizon import FurtherTitles, Moments
from playbill.datasets.examples.rows import TrainingRows

HORIZON = {"within": "12d", "half_life": "3d", "most": 3}
HOUR = 3_600_000_000


def built(log: pl.DataFrame, horizon: dict[str, Any] | None, **head: Any) -> TrainingSet:
    heads = {"play": {"label": "play", "loss": "softmax", "horizon": horizon, **head}}
    return service.training_set(service.model(heads), log)


def plain(plays: pl.DataFrame, spans: pl.DataFrame, own: dict[str, Any]) -> dict[str, float]:
    """Title -> weight of what a member played after a request, by the definition of a horizon."""
    at, found = own["event_at"], {}
    for later in plays.filter(pl.col("member_id") == own["member_id"]).sort("seq").iter_rows(named=True):
        title, age = later["title_id"], later["event_at"] - at
        if later["seq"] <= own["seq"] or age > timedelta(days=12) or title == own["title_id"] or title in found:
            continue
        if service.can_see(spans, title, own["country"], at) and len(found) < HORIZON["most"] - 1:
            found[title] = 0.5 ** (age / timedelta(days=3))
    total = 1 + sum(found.values())
    return {title: weight / total for title, weight in found.items()}


def test_targets_are_what_was_played_within_the_time_and_could_be_seen_in_the_request() -> None:
    log, spans = service.log(members=25, requests=14), service.availability()
    training_set = built(log, HORIZON)
    plays = make_split("leave_one_out", log).events(log, "train").filter(pl.col("action") == "play")
    events = {(own["member_id"], own["event_at"]): own for own in plays.iter_rows(named=True)}
    members = log["member_id"].unique(maintain_order=True).to_list()
    seen = unseen = 0
    for batch, (row, member) in zip(training_set.epoch(0), training_set.rows_read(0), strict=True):
        further = batch.targets.further["play"]
        for place in np.nonzero(batch.targets.labels["play"] > 0)[0]:
            moment = datetime.fromtimestamp(
                training_set.moment[training_set.rows.request[row[place]]] / 1e6, tz=service.START.tzinfo
            )
            own = events[(members[member[place]], moment)]
            there = further.title[place] > 0
            titles = [service.TITLES[title - 1] for title in further.title[place][there]]
            wanted = plain(plays, spans, own)
            assert titles == list(wanted)
            assert further.share[place][there] == pytest.approx(list(wanted.values()), rel=1e-5)
            assert (further.share[place][~there] == 0).all()
            seen += len(wanted)
            unseen += len(plain(plays, spans.with_columns(country=pl.lit("*")), own)) - len(wanted)
    assert seen > 100
    assert unseen > 5, "the log has titles that came later"


def test_nothing_of_the_held_out_part_is_a_target() -> None:
    log = service.log()
    held = make_split("leave_one_out", log).events(log, "validation", "test")
    training_set = built(log, {"within": "4000d", "half_life": "4000d", "most": 64})
    played = {
        (member, title)
        for member, title in make_split("leave_one_out", log)
        .events(log, "train")
        .filter(pl.col("action") == "play")
        .select("member_id", "title_id")
        .iter_rows()
    }
    members = log["member_id"].unique(maintain_order=True).to_list()
    assert held.height
    for batch, (row, member) in zip(training_set.epoch(0), training_set.rows_read(0), strict=True):
        for place in range(len(row)):
            titles = batch.targets.further["play"].title[place]
            assert all((members[member[place]], service.TITLES[title - 1]) in played for title in titles[titles > 0])


def test_targets_are_no_negatives_of_their_row() -> None:
    negatives = {"policy": "mixed", "count": 40, "shares": {"uniform": 0.7, "shown_not_played": 0.3}}
    training_set = built(service.log(), HORIZON, loss="sampled_softmax", negatives=negatives)
    several = 0
    for batch in training_set.epoch(0):
        own, further = batch.targets.negatives["play"], batch.targets.further["play"]
        targets = np.concatenate([batch.targets.title[:, None], further.title], axis=1)
        for row, titles in enumerate(targets):
            wanted = set(titles[titles > 0].tolist())
            several += len(wanted) > 1
            assert not wanted & set(own.title[own.usable[row]].tolist())
            assert not wanted & set(own.shown[row].tolist())
    assert several > 20


def test_a_head_without_a_horizon_has_one_target_and_no_moments() -> None:
    training_set = built(service.log(), None)
    assert next(training_set.epoch(0)).targets.further == {}
    assert len(training_set.moment) == 0


def test_a_horizon_is_the_same_on_every_rank_and_after_a_round_trip(tmp_path) -> None:
    training_set = built(service.log(), HORIZON)
    training_set.save(tmp_path)
    again = TrainingSet.load(tmp_path)
    whole = [batch.targets.further["play"] for batch in again.epoch(1)]
    ranks = [[batch.targets.further["play"] for batch in training_set.epoch(1, rank, 2)] for rank in range(2)]
    for one, *parts in zip(whole, *ranks, strict=True):
        both = sorted(row for part in parts for row in part.share.tolist())
        assert both == sorted(one.share.tolist())


def test_requests_for_one_thing_keep_their_own_title(tables, resolved, features, clock) -> None:
    """A made row asks for its own title by name, or by a title played before it: later plays are no answer."""
    heads = dict(resolved.model.heads)
    heads["discovery_play"] = heads["discovery_play"].model_validate(
        heads["discovery_play"].model_dump() | {"horizon": {"within": "30d", "most": 4}}
    )
    model = resolved.model.model_copy(update={"heads": heads})
    split = make_split("leave_one_out", tables.interactions())
    data = build_training_set(tables, resolved.model_copy(update={"model": model}), split, features, clock)
    canvases = [data.encoder.vocabulary("canvas").encode([name])[0] for name in ("search", "more_like_this")]
    checked = 0
    for batch in data.epoch(0):
        made = np.isin(batch.context.canvas, canvases)
        share = batch.targets.further["discovery_play"].share
        assert (share[made] == 0).all()
        checked += int(made.sum())
    assert checked > 50
    assert (share[~made] > 0).any()


def rows_of(title: list[int], at: list[int], label: list[float], weight: list[float] | None = None) -> Any:
    """Rows of one member, in the order of the log, with moments in hours."""
    count = len(title)
    rows = TrainingRows(
        slot=np.arange(count),
        title=np.array(title),
        request=np.arange(count),
        next=np.ones(count, np.bool_),
        labels={"play": np.array(label, np.float32)},
        weights={} if weight is None else {"play": np.array(weight, np.float32)},
        copies=np.zeros(0, np.int64),
        slate=np.zeros(0, np.int32),
        slate_offsets=np.zeros(0, np.int64),
    )
    moments = Moments.of(rows, np.zeros(count - 1, np.int64), np.array(at) * HOUR, np.zeros(count, np.bool_))
    return rows, moments


OPTIONS = {"within_s": 48 * 3600.0, "half_life_s": 24 * 3600.0, "most": 4}
ANY = (np.zeros((0, 0), np.bool_), np.zeros(0, np.int64))


def further(rows: TrainingRows, moments: Moments, **options: Any) -> tuple[list[list[int]], list[list[float]]]:
    found = FurtherTitles(rows, "play", moments, OPTIONS | options).of(np.arange(len(rows)), len(rows), *ANY)
    return found.title.tolist(), found.share.astype(np.float64).round(4).tolist()


def test_within_a_day_of_a_log_of_whole_days_the_order_is_that_of_the_log() -> None:
    titles, shares = further(*rows_of([5, 6, 7, 8], [0, 0, 24, 72], [1, 1, 1, 1]))
    assert titles == [[6, 7, 0], [7, 0, 0], [8, 0, 0], [0, 0, 0]]
    assert shares[0] == [0.4, 0.2, 0.0]  # 1 : 1 : 0.5, a day being a half-life
    assert shares[2] == [0.2, 0.0, 0.0]  # exactly within: 1 : 0.25


def test_titles_weigh_by_reward_and_count_once_and_unlabelled_rows_not_at_all() -> None:
    rows, moments = rows_of([5, 6, 5, 6, 7, 9], [0] * 6, [1, 2, 1, 1, np.nan, 1], [1.0, 0.5, 9.0, 9.0, 9.0, 3.0])
    titles, shares = further(rows, moments)
    assert titles[0] == [6, 9, 0]
    assert shares[0] == [0.2, 0.6, 0.0]  # 1 : 2 x 0.5 : 3
    assert titles[4] == [0, 0, 0]
    silent = replace(rows, silent=np.array([False, True, False, False, False, False]))
    assert further(silent, moments)[0][0] == [6, 9, 0], "the title comes again, in a row that teaches"
    assert further(silent, moments)[1][0] == pytest.approx([9 / 13, 3 / 13, 0.0], abs=1e-4)


def test_no_more_titles_than_asked_for_and_none_of_another_member() -> None:
    rows, _ = rows_of([1, 2, 3, 4, 5, 6], [0] * 6, [1] * 6)
    members = replace(rows, slot=np.array([0, 1, 2, 4, 5, 6]))
    moments = Moments.of(members, np.array([0, 0, 0, 1, 1]), np.zeros(6, np.int64), np.zeros(6, np.bool_))
    assert moments.member.tolist() == [0, 0, 0, 1, 1, 1]
    titles, shares = further(members, moments, most=2)
    assert titles == [[2], [3], [0], [5], [6], [0]]
    assert shares[0] == [0.5]


def test_members_without_tokens_are_told_apart() -> None:
    rows, _ = rows_of([1, 2, 3, 4], [0] * 4, [1] * 4)
    # Member 0 has two tokens and three states; members 1 and 3 none and one state; member 2 one token.
    rows = replace(rows, slot=np.array([0, 3, 4, 6]))
    moments = Moments.of(rows, np.array([0, 0, 2]), np.zeros(4, np.int64), np.zeros(4, np.bool_))
    assert moments.member.tolist() == [0, 1, 2, 3]
    assert further(rows, moments)[0] == [[0, 0, 0]] * 4
