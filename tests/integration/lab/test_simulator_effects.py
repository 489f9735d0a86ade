"""Effects of device, hour, season, households and franchises: each is seen in the events, none by default."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from playbill.clock import to_microseconds
from playbill.errors import ConfigError, DefinitionError
from playbill.schema import KINDS
from playbill_lab.cli.simulate import wanted_world
from playbill_lab.simulator import PolicyRequest, Slates, World, WorldSpec, read_spec, simulate
from playbill_lab.simulator.engine.choices import Response, leanings
from playbill_lab.simulator.world import canvases as on
from playbill_lab.simulator.world.catalogue import Franchises
from playbill_lab.simulator.world.effects import GENRE_HOURS, day_of_year, taste_of
from playbill_lab.simulator.world.spec import EffectsSpec, named_worlds, read_world_file

SMALL = {"seed": 9, "members": 450, "days": 10, "titles": 120, "sessions_per_day": 1.2}
ONE_PLACE = {"countries": [{"code": "GB", "languages": ["en"], "catalogue_share": 1.0}]}


def plays_of(effects: dict[str, float], **fields: object) -> tuple[World, pl.DataFrame]:
    """Return a world with these effects and its first plays of each title, with what the titles are."""
    world = World.make(read_spec(SMALL | ONE_PLACE | fields | {"effects": effects}))
    log = simulate(world, keep_log=True).interactions
    titles = world.titles.select("title_id", "kind", "genres", "runtime_min", "kids")
    plays = log.filter(pl.col("action") == "play").unique(["member_id", "title_id"], keep="first", maintain_order=True)
    return world, plays.join(titles, on="title_id")


@pytest.fixture(scope="module")
def plain() -> pl.DataFrame:
    return plays_of({})[1]


def share(plays: pl.DataFrame, what: pl.Expr, where: pl.Expr) -> float:
    return float(plays.filter(where).select(what.mean()).item())


def test_a_world_without_effects_is_what_it_was_before_there_were_any() -> None:
    """The hash is of the log of this spec before effects were part of the law."""
    world = World.make(WorldSpec(seed=2, members=120, days=5, titles=60))
    assert world.effects is None
    log = simulate(world, keep_log=True).interactions
    rows = log.select("member_id", "seq", "action", "title_id", "canvas", "position", "device").rows()
    assert hashlib.sha256(repr(rows).encode()).hexdigest()[:16] == "18773b22acc329a3"


def test_genres_have_their_hours(plain: pl.DataFrame) -> None:
    _, plays = plays_of({"hour_genre": 3.0})
    morning, night = (pl.col("event_at").dt.hour().is_between(*hours) for hours in ((7, 10), (21, 23)))
    young = pl.col("genres").list.set_intersection(["animation", "family"]).list.len() > 0
    assert share(plays, young, morning) > 2 * share(plays, young, night)
    assert share(plain, young, morning) < 1.5 * share(plain, young, night)
    assert GENRE_HOURS["family"] in range(7, 11)


def test_phones_are_for_short_titles_and_televisions_for_long_ones(plain: pl.DataFrame) -> None:
    _, plays = plays_of({"device_length": 1.0})
    phone, tv = pl.col("device") == "mobile", pl.col("device") == "tv"
    length = pl.col("runtime_min")
    assert share(plays, length, tv) > share(plays, length, phone) + 15
    assert abs(share(plain, length, tv) - share(plain, length, phone)) < 10


def test_long_films_are_for_the_evening_on_a_television(plain: pl.DataFrame) -> None:
    _, plays = plays_of({"evening_films": 2.0})
    evening = (pl.col("device") == "tv") & pl.col("event_at").dt.hour().is_between(19, 22)
    film = (pl.col("kind") == "film") & (pl.col("runtime_min") > 110)
    assert share(plays, film, evening) > share(plays, film, ~evening) + 0.1
    assert abs(share(plain, film, evening) - share(plain, film, ~evening)) < 0.05


def test_films_are_for_the_weekend(plain: pl.DataFrame) -> None:
    _, plays = plays_of({"weekday_kind": 1.0})
    weekend = pl.col("event_at").dt.weekday() >= 5
    film = pl.col("kind") == "film"
    assert share(plays, film, weekend) > share(plays, film, ~weekend) + 0.1
    assert abs(share(plain, film, weekend) - share(plain, film, ~weekend)) < 0.06


def test_genres_have_their_season() -> None:
    found = {}
    for start in ("2025-10-24T00:00:00Z", "2025-04-20T00:00:00Z"):
        _, plays = plays_of({"season_genre": 3.0}, start=start)
        found[start[5:7]] = plays.select(pl.col("genres").list.contains("horror").mean()).item()
    assert found["10"] > 2 * found["04"]


def test_days_of_the_year_begin_at_0() -> None:
    spec = [WorldSpec(start=f"{day}T05:00:00Z") for day in ("2024-01-01", "2024-12-31", "2025-12-31", "1970-02-01")]
    np.testing.assert_array_equal(
        day_of_year(np.array([to_microseconds(one.start) for one in spec])), [0, 365, 364, 31]
    )


def test_lists_are_looked_at_further_along_on_a_television_and_pages_further_down_on_a_phone() -> None:
    world = World.make(read_spec(SMALL | {"effects": {"device_look": 1.0}}))
    seen = simulate(world, keep_log=True).interactions.filter(pl.col("action") == "impression")
    home = seen.filter(pl.col("canvas") == "home").group_by("device").agg(pl.col("position").mean())
    rows = seen.filter(pl.col("canvas") == "row_ranking").group_by("device").agg(pl.col("position").mean())
    along, down = (dict(frame.iter_rows()) for frame in (home, rows))
    assert along["tv"] > along["mobile"] + 0.5
    assert down["mobile"] > down["tv"] + 0.5


def test_rows_draw_by_device() -> None:
    found = {}
    for size in (0.0, 1.5):
        world = World.make(read_spec(SMALL | {"effects": {"device_rows": size}}))
        log = simulate(world, keep_log=True).interactions
        top = log.filter(pl.col("row_id") == "top_10", pl.col("canvas") == "home", pl.col("title_id").is_not_null())
        rate = top.group_by("device").agg((pl.col("action") == "play").sum() / (pl.col("action") == "impression").sum())
        found[size] = dict(rate.iter_rows())
    assert found[1.5]["tv"] > 2 * found[1.5]["mobile"]
    assert found[0.0]["tv"] < 1.5 * found[0.0]["mobile"]


def test_households_have_another_taste_away_from_the_television() -> None:
    world = World.make(read_spec(SMALL | {"effects": {"households": 0.6}}))
    member = np.arange(len(world.people))
    tv, phone = (taste_of(world.truth, member, np.full(len(member), on.DEVICES.index(name))) for name in on.DEVICES[:2])
    match = np.array([taste @ world.truth.vector.T for taste in (tv, phone)])
    assert match.std(axis=(1, 2)) == pytest.approx([1, 1], abs=0.1)
    assert np.corrcoef(match[0].ravel(), match[1].ravel())[0, 1] == pytest.approx(np.sqrt(0.4), abs=0.1)
    np.testing.assert_array_equal(tv, world.truth.taste)
    plain = World.make(read_spec(SMALL))
    assert plain.truth.taste_alone is None
    np.testing.assert_array_equal(plain.truth.taste, world.truth.taste)


FRANCHISES = {"franchise_share": 0.6, "out_of_order": 2.0}


def test_parts_of_a_franchise_are_alike_and_named_in_order() -> None:
    world = World.make(read_spec(SMALL | {"effects": FRANCHISES}))
    films, own = world.catalogue.kind == KINDS.index("film"), world.catalogue.franchises
    parts = (own.part > 1) | (own.then >= 0)
    assert parts[films].mean() == pytest.approx(0.6, abs=0.05)
    assert not parts[~films].any()
    names = world.catalogue.titles["names"].list.first().struct.field("name").to_list()
    dates = world.catalogue.titles["release_date"].to_list()
    for title in np.flatnonzero(own.part > 1):
        before, head = own.follows[title], own.head[title]
        assert own.part[before] == own.part[title] - 1
        assert names[title].startswith(f"{names[head]} Part I") or names[title].startswith(f"{names[head]} Part V")
        assert dates[before] <= dates[title]
        assert (world.catalogue.genre[title] == world.catalogue.genre[head]).all()
    later = own.part > 1
    similar = (world.truth.vector[later] * world.truth.vector[own.head[later]]).sum(axis=1)
    assert similar.mean() > 0.85
    assert len(set(names)) == len(names)


def test_values_within_a_franchise_rise_by_part() -> None:
    own = Franchises(np.array([0, 1, 0, 0], np.int32), np.array([1, 1, 3, 2], np.int32), np.array([-1, -1, 3, 0]))
    np.testing.assert_array_equal(own.in_order(np.array([7, 1, 5, 9])), [5, 1, 9, 7])
    np.testing.assert_array_equal(own.then, [3, -1, -1, 2])
    np.testing.assert_array_equal(Franchises.none(3).in_order(np.array([3, 1, 2])), [3, 1, 2])


def test_who_finished_a_part_plays_the_next() -> None:
    followed = {}
    for name, sizes in (("off", {}), ("on", {"sequel": 4.0, "service_sequels": 4.0})):
        world, plays = plays_of(FRANCHISES | sizes)
        numbers = {title: place for place, title in enumerate(world.title_ids.to_list())}
        title = np.array([numbers[name] for name in plays["title_id"]])
        same = plays["member_id"].to_numpy()[1:] == plays["member_id"].to_numpy()[:-1]
        before = world.catalogue.franchises.follows[title[1:]]
        followed[name] = ((before == title[:-1]) & (before >= 0) & same).mean()
    assert followed["on"] > 3 * followed["off"]


def test_more_of_what_was_finished_last() -> None:
    found = {}
    for size in (0.0, 2.0):
        world, plays = plays_of({"momentum": size})
        numbers = {title: place for place, title in enumerate(world.title_ids.to_list())}
        vector = world.truth.vector[[numbers[name] for name in plays["title_id"]]]
        same = plays["member_id"].to_numpy()[1:] == plays["member_id"].to_numpy()[:-1]
        found[size] = float((vector[1:] * vector[:-1]).sum(axis=1)[same].mean())
    assert found[2.0] > found[0.0] + 0.06, found


RICH = {"members": 300, "days": 10, "titles": 120, "seed": 3}


def test_the_rich_world_has_every_effect() -> None:
    spec = read_world_file(Path("rich"), {})
    assert all(value for value in spec.effects.model_dump().values())
    assert named_worlds() == ("rich",)
    assert wanted_world(Path("rich"), None, members=50).effects == spec.effects


def test_the_oracle_is_ahead_of_oracles_that_know_less() -> None:
    """Of the titles on a list, the whole law ranks the played one above laws without one group of effects."""
    world = World.make(read_world_file(Path("rich"), {"members": 300, "days": 10, "titles": 120, "seed": 3}))
    moment = ("device_length", "evening_films", "hour_genre", "weekday_kind", "season_genre")
    oracles = {
        "whole": world,
        "moment": without(world, *moment),
        "last": without(world, "sequel", "out_of_order", "momentum"),
        "households": replace(world, truth=replace(world.truth, taste_alone=None)),
    }
    gains: dict[str, list[float]] = {name: [] for name in oracles}

    def watch(request: PolicyRequest, slates: Slates, response: Response) -> None:
        at = np.flatnonzero(response.played >= 0)
        title = slates.titles[at, response.played[at]]
        fresh = request.state.played[request.member[at], title] == 0
        at, title = at[fresh], title[fresh]
        for name, progress in oracles.items():
            leaning = leanings(replace(request.take(at), world=progress), slates.titles[at])
            worth = leaning.click * leaning.play
            own = np.take_along_axis(worth, response.played[at][:, None], 1)
            gains[name] += (1 / np.log2(2 + (worth > own).sum(axis=1))).tolist()

    simulate(world, watch=watch)
    mean = {name: np.mean(own) for name, own in gains.items()}
    assert len(gains["whole"]) > 500
    assert all(mean["whole"] > mean[name] + 0.005 for name in oracles if name != "whole"), mean


def without(world: World, *names: str) -> World:
    """Return the world with a law that lacks some effects."""
    effects = world.spec.effects.model_copy(update=dict.fromkeys(names, 0.0))
    return replace(world, spec=world.spec.model_copy(update={"effects": effects}))


def test_unknown_effects_and_worlds_are_named() -> None:
    with pytest.raises(DefinitionError, match="Did you mean 'hour_genre'"):
        read_spec({"effects": {"hour_genres": 1}})
    with pytest.raises(DefinitionError, match=r"effects.households: .*\n.*effects.sequel: "):
        read_spec({"effects": {"sequel": float("nan"), "households": 1.5}})
    with pytest.raises(ConfigError, match="worlds known by name: rich"):
        read_world_file(Path("poor"), {})
    assert EffectsSpec() == WorldSpec().effects
