"""A policy may order the rows of pages; what it answers is checked and logged as it is."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl
import pytest

from playbill.errors import IntegrityError
from playbill_lab.simulator.engine.run import simulate
from playbill_lab.simulator.policies.page_orders import Pages, RowOrders
from playbill_lab.simulator.policies.policies import PlackettLuce
from playbill_lab.simulator.world import canvases as on
from playbill_lab.simulator.world.spec import WorldSpec
from playbill_lab.simulator.world.world import World


@pytest.fixture(scope="module")
def world() -> World:
    return World.make(WorldSpec(seed=3, members=150, titles=120, days=8))


class Reversed(PlackettLuce):
    """Shows the law's rows from the bottom up, and says each had one chance in two."""

    name = "reversed"

    def order(self, pages: Pages, rng: np.random.Generator) -> RowOrders:
        assert rng.random() < 1
        count = (pages.rows >= 0).sum(axis=1)
        back = count[:, None] - 1 - np.arange(on.MOST_ROWS)
        rows = np.where(back >= 0, np.take_along_axis(pages.rows, np.maximum(back, 0), 1), -1)
        return RowOrders(rows.astype(np.int8), np.full(rows.shape, 0.5, np.float32))


@dataclass
class Wrong(PlackettLuce):
    """Answers every page with the same rows."""

    rows: tuple[int, ...]
    propensity: float = 1.0

    name = "wrong"

    def __post_init__(self) -> None:
        super().__init__()

    def order(self, pages: Pages, rng: np.random.Generator) -> RowOrders:
        rows = np.tile(np.array(self.rows, np.int8), (len(pages), 1))
        return RowOrders(rows, np.full(rows.shape, self.propensity, np.float32))


def test_rows_come_in_the_order_of_the_policy_with_its_propensities(world: World) -> None:
    log = simulate(world, Reversed(), keep_log=True).interactions
    rows = log.filter(pl.col("canvas") == "row_ranking")
    assert rows["propensity"].unique().to_list() == [0.5]
    top = rows.filter(pl.col("position") == 0)["row_id"].str.split(":").list.first()
    lawful = simulate(world, PlackettLuce(), keep_log=True).interactions.filter(pl.col("canvas") == "row_ranking")
    by_law = lawful.filter(pl.col("position") == 0)["row_id"].str.split(":").list.first()
    assert (by_law.is_in(["continue_watching", "top_picks"])).all()
    assert not top.is_in(["continue_watching"]).any()
    assert top.n_unique() > 3


@pytest.mark.parametrize(
    ("rows", "propensity", "what"),
    [
        ((on.TOP_PICKS, on.TOP_PICKS), 1.0, "a row twice"),
        ((on.TOP_PICKS, -1, on.POPULAR), 1.0, "an empty place above a row"),
        ((on.CONTINUE_WATCHING,), 1.0, "rows that cannot be there"),
        ((on.TOP_PICKS,), 0.0, "a propensity outside"),
        ((-1, -1), 1.0, "no row at all"),
        (tuple(range(9)), 1.0, "at most 8 rows"),
    ],
)
def test_an_order_that_cannot_be_shown_is_refused(
    world: World, rows: tuple[int, ...], propensity: float, what: str
) -> None:
    with pytest.raises(IntegrityError, match=what):
        simulate(world, Wrong(rows, propensity))


def test_a_policy_that_leaves_the_order_to_the_service_changes_nothing(world: World) -> None:
    class Lawful(PlackettLuce):
        def order(self, pages: Pages, rng: np.random.Generator) -> None:
            return None

    ours, law = (simulate(world, one, keep_log=True).interactions for one in (Lawful(), PlackettLuce()))
    assert ours.equals(law)
