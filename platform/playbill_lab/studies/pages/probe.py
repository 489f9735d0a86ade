"""Pages that arms would have shown, built where the service showed its own, and what members played after them.

Axis letters: N pages, R rows, C columns, M (page, relevant title) pairs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from playbill.specs.page import PageSpec
from playbill_lab.simulator.engine.run import Outcome
from playbill_lab.simulator.policies.page_orders import Pages, RowOrders
from playbill_lab.simulator.policies.policies import Policy
from playbill_lab.simulator.policies.policy_request import Asked, Slates
from playbill_lab.simulator.world.world import World
from playbill_lab.studies.pages.facts import page_facts
from playbill_lab.studies.pages.policy import PagePolicy, page_titles, row_orders

RELEVANT_DAYS = 7
"""A play within so many days makes its title relevant to a page."""

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class JudgedPages:
    """N pages of the third group as every arm built them, and what their members played in the week after.

    Args:
        member: [N].
        titles: Arm -> [N, R, C].
        facts: Arm -> [N, R, C, F].
        relevant: [M] pages and titles of plays in the days after each page.
        discovered: [M] those of them that the member had never played.
        known: Arm -> [N, R, C] titles that the member had played before.
    """

    member: Ints
    titles: dict[str, Ints]
    facts: dict[str, npt.NDArray[np.float64]]
    known: dict[str, npt.NDArray[np.bool_]]
    relevant: tuple[Ints, Ints]
    discovered: tuple[Ints, Ints]


@dataclass
class Probe:
    """The log's own policy, which lets every arm build some members' pages and shows none of them.

    Args:
        base: Answers.
        policy: Builds.
        arms: Arm -> what its pages keep to.
        members: [M] whose pages are built.
        from_day: First day.
        most: Pages at most.
    """

    base: Policy
    policy: PagePolicy
    arms: Mapping[str, PageSpec]
    members: npt.NDArray[np.bool_]
    from_day: int
    most: int
    parts: list[dict[str, Any]] = field(default_factory=list)
    taken: int = 0

    @property
    def name(self) -> str:
        """The base's name."""
        return self.base.name

    def answer(self, asked: Asked, rng: np.random.Generator) -> Slates:
        """Let the base answer."""
        return self.base.answer(asked, rng)

    def probabilities(self, asked: Asked, titles: npt.NDArray[np.int32]) -> npt.NDArray[np.float32]:
        """Return the base's probabilities."""
        return self.base.probabilities(asked, titles)

    def order(self, pages: Pages, rng: np.random.Generator) -> RowOrders | None:
        """Build the pages of the members in question, and leave the order to the service."""
        chosen = np.flatnonzero(self.members[pages.member])[: self.most - self.taken]
        if pages.state.day < self.from_day or not len(chosen):
            return None
        self.taken += len(chosen)
        part = pages.take(chosen)
        built = self.policy.built(part, self.arms)
        noted: dict[str, Any] = {"member": part.member, "at_us": part.at_us, "titles": {}, "facts": {}, "known": {}}
        for arm, own in built.items():
            titles, rows = page_titles(own), row_orders(own).rows
            places = np.broadcast_to(np.arange(rows.shape[1]), rows.shape)
            noted["titles"][arm] = titles
            noted["facts"][arm] = page_facts(part.state, part.member, part.at_us, rows, places, titles)
            known = part.state.played[part.member[:, None, None], np.maximum(titles, 0)] > 0
            noted["known"][arm] = known & (titles >= 0)
        self.parts.append(noted)
        return None


def gathered(probe: Probe, outcome: Outcome, world: World) -> JudgedPages:
    """Return the pages that a probe built, with what their members played after them."""
    joined: dict[str, Any] = {
        name: np.concatenate([part[name] for part in probe.parts]).astype(np.int64) for name in ("member", "at_us")
    }
    for name in ("titles", "facts", "known"):
        joined[name] = {arm: np.concatenate([part[name][arm] for part in probe.parts]) for arm in probe.arms}
    pairs = plays_after(joined["member"], joined["at_us"], outcome.interactions, world)
    page, title, again = (pairs[name].to_numpy() for name in ("page", "title", "again"))
    return JudgedPages(
        member=joined["member"],
        titles=joined["titles"],
        facts=joined["facts"],
        known=joined["known"],
        relevant=(page, title),
        discovered=(page[~again], title[~again]),
    )


def plays_after(member: Ints, at_us: Ints, events: pl.DataFrame, world: World) -> pl.DataFrame:
    """Return page, title and whether it was known, of plays within `RELEVANT_DAYS` of each page."""
    numbers = pl.DataFrame({"member_id": world.member_ids, "member": np.arange(len(world.member_ids))})
    titles = pl.DataFrame({"title_id": world.title_ids, "title": np.arange(len(world.title_ids))})
    plays = events.filter(pl.col("action") == "play").join(numbers, on="member_id").join(titles, on="title_id")
    plays = plays.select("member", "title", played=pl.col("event_at").dt.epoch("us"))
    plays = plays.with_columns(first=pl.col("played").min().over("member", "title"))
    pages = pl.DataFrame({"page": np.arange(len(member)), "member": member, "at": at_us})
    found = pages.join(plays, on="member").filter(
        pl.col("played") >= pl.col("at"), pl.col("played") < pl.col("at") + RELEVANT_DAYS * 86_400_000_000
    )
    return found.select("page", "title", again=pl.col("first") < pl.col("at")).unique(maintain_order=True).sort("page")
