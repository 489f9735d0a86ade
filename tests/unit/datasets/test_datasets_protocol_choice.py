"""The protocol that a log is held out by where nothing names one."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest

from playbill.datasets import Split, make_split
from playbill.datasets.protocol_choice import LEAST_RETURNING, RETURNING, choose_protocol, model_split, waiting_heads
from playbill.definitions.specs import LabelSpec, ResolvedModel

START = datetime(2024, 1, 1, tzinfo=UTC)


def log(returning: int, gone: int = 0, tied: int = 0, plays: int = 4) -> pl.DataFrame:
    """Return `plays` early plays of every member, and as many late ones of those who return that they are a tenth.

    Of those who never return, `tied` have their last two plays at one moment.
    """
    rows = []
    for member in range(returning + gone):
        for place in range(plays):
            shared = place == plays - 2 and returning <= member < returning + tied
            rows.append((f"m{member}", place, START + timedelta(hours=10 * (place + shared) + member / 100)))
    late = START + timedelta(days=100)
    for place in range(-(-len(rows) // 9)):
        rows.append((f"m{place % returning}", plays + place, late + timedelta(hours=place)))
    frame = pl.DataFrame(rows, schema=["member_id", "seq", "event_at"], orient="row")
    frame = frame.with_columns(pl.col("event_at").cast(pl.Datetime("us", "UTC")), action=pl.lit("play"))
    return frame.with_columns(event_id=pl.concat_str("member_id", pl.lit("-"), "seq"))


@pytest.mark.parametrize(
    ("returning", "gone", "tied", "protocol", "reason"),
    [
        (RETURNING, 800, 0, "global_time_period", "200 members have plays before and after 2024-04-10"),
        (RETURNING - 1, 800, 0, "leave_one_out", "only 199 members have plays before and after 2024-04-10"),
        (LEAST_RETURNING, 270, 31, "global_time_period", "the last play of 31 of 300 members shares its moment"),
        (LEAST_RETURNING, 270, 30, "leave_one_out", "only 30 members"),
        (LEAST_RETURNING - 1, 271, 31, "leave_one_out", "only 29 members"),
    ],
)
def test_the_log_decides(returning: int, gone: int, tied: int, protocol: str, reason: str) -> None:
    interactions = log(returning, gone, tied)
    choice = choose_protocol(interactions)
    assert choice.protocol == protocol
    assert reason in choice.reason
    assert choose_protocol(interactions.sample(fraction=1.0, shuffle=True, seed=3)) == choice
    assert make_split(choice.protocol, interactions).counts()["test"]


def test_a_log_without_time_to_cut_at_holds_out_last_plays() -> None:
    frozen = log(RETURNING).with_columns(event_at=pl.lit(START).cast(pl.Datetime("us", "UTC")))
    choice = choose_protocol(frozen, {"completion": "completion"})
    assert choice.protocol == "leave_one_out"
    assert "no time to cut at" in choice.reason


def test_members_with_two_plays_are_held_out_by_time() -> None:
    choice = choose_protocol(log(returning=1, gone=8, plays=1))
    assert choice.protocol == "global_time_period"
    assert choice.reason == "no member has 3 plays"


def test_a_model_that_waits_for_outcomes_is_held_out_by_time() -> None:
    few = log(returning=5)
    assert choose_protocol(few).protocol == "leave_one_out"
    choice = choose_protocol(few, {"finish": "completion"})
    assert choice.protocol == "global_time_period"
    assert choice.reason == "head 'finish' learns label 'completion', which waits for what comes after an event"


def test_a_named_protocol_wins_over_the_log(resolved: ResolvedModel) -> None:
    interactions = log(RETURNING, 800)
    chosen, choice = model_split(resolved, interactions), choose_protocol(interactions)
    assert (chosen.protocol, chosen.reason) == ("global_time_period", choice.reason)
    assert chosen.notes == (f"held out by global_time_period, since {choice.reason}",)
    named = model_split(resolved, interactions, "leave_one_out")
    assert (named.protocol, named.notes) == ("leave_one_out", ())
    evaluate = resolved.model.evaluate.model_copy(update={"protocol": "global_time"})
    written = resolved.model_copy(update={"model": resolved.model.model_copy(update={"evaluate": evaluate})})
    assert (model_split(written, interactions).protocol, model_split(written, interactions).notes) == (
        "global_time",
        (),
    )


def test_optional_heads_and_labels_of_the_moment_wait_for_nothing(resolved: ResolvedModel) -> None:
    assert waiting_heads(resolved) == {}
    later = LabelSpec.model_validate(
        {**resolved.labels["thumbs_up"].model_dump(by_alias=True), "window": "7d", "matures_after": "7d"}
    )
    waits = resolved.model_copy(update={"labels": {**resolved.labels, "thumbs_up": later}})
    assert waiting_heads(waits) == {"thumbs_up": "thumbs_up"}
    heads = {**waits.model.heads, "thumbs_up": waits.model.heads["thumbs_up"].model_copy(update={"optional": True})}
    assert waiting_heads(waits.model_copy(update={"model": waits.model.model_copy(update={"heads": heads})})) == {}


def test_a_split_keeps_the_reason_on_disk_and_loses_it_under_another_protocol(
    tmp_path: Path, resolved: ResolvedModel
) -> None:
    chosen = model_split(resolved, log(RETURNING, 800))
    chosen.save(tmp_path / "split.parquet")
    assert Split.load(tmp_path / "split.parquet").reason == chosen.reason != ""
    assert chosen.under("global_time").notes == ()
