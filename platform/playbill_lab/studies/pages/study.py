"""The study of pages: arms that order rows, judged on the same pages by plays and a held-out reward, and live.

Members are in three groups by their number. The policy learns from the first, the held-out reward from the second, in
the log; the pages that are judged are those of the third, after the log. Nobody is in two groups. Axis letters: N
pages, R rows, C columns, M (page, relevant title) pairs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from playbill.arrays import Bools, Floats32, Floats64, Ints32, Ints64
from playbill.datasets import make_split
from playbill.definitions.specs.canvas import VIEWPORTS, PageSpec
from playbill.definitions.zoo import Zoo
from playbill.metrics import Interval, MemberBootstrap
from playbill_lab.ab.experiment import Test, simulated_ab
from playbill_lab.ab.report import AbReport
from playbill_lab.bridge.live_features import NoFeatures
from playbill_lab.bridge.simulated_log import Fitted, SimulatedLog, fit_model, going_on
from playbill_lab.simulator import Policy, PolicyRequest, RunOutcome, Slates, World, WorldSpec, load_policy, simulate
from playbill_lab.simulator.policies.page_orders import Pages, RowOrders
from playbill_lab.studies.pages.facts import LookLog, PageReward, RewardError, page_facts, reward_error
from playbill_lab.studies.pages.metrics import duplicate_rate, page_coverage, page_diversity, page_ndcg, page_recall
from playbill_lab.studies.pages.policy import (
    PAGE_ARMS,
    PagePolicy,
    PagesRecipe,
    page_spec,
    page_titles,
    pages_model,
    row_orders,
)

BASE = "epsilon_greedy"
"""The policy that writes the log; it leaves the order of rows to the service. Nine titles of ten are the best that are
left, as in the pages that are judged: a row head reads the first title of a row, and in a log of titles drawn at random
that says nothing of the others."""
TRAIN, REWARD, JUDGED = (0, 1, 2), (3,), (4,)  # Groups of members, by their number modulo five
GROUPS = 5
RESAMPLES = 500

Tell = Callable[[str], None]


@dataclass(frozen=True)
class PagesOptions:
    """Sizes of the study."""

    members: int = 2000
    titles: int = 400
    log_days: int = 28
    judged_days: int = 10  # Days after it whose pages are judged
    most_pages: int = 800  # Pages that are judged, at most
    test_members: int = 800
    test_days: int = 10
    seed: int = 7
    base: str = BASE  # The policy that writes the log and goes on until the arms take over
    arms: tuple[str, ...] = PAGE_ARMS  # Some of `PAGE_ARMS`; the first is the one to beat
    recipe: PagesRecipe = field(default_factory=PagesRecipe)


@dataclass(frozen=True)
class PagesStudy:
    """What the study found."""

    options: PagesOptions
    arms: dict[str, dict[str, Interval]]  # Arm -> metric -> interval by member
    differences: dict[str, dict[str, Interval]]  # The same, minus those of the first arm
    coverage: dict[str, float]  # Arm -> share of titles on some page
    error: RewardError
    online: AbReport
    fitted: Fitted
    pages: int


def run_pages(zoo: Zoo, options: PagesOptions, folder: Path, tell: Tell = lambda text: None) -> PagesStudy:
    """Run the study; see the module. `tell` is called with what is being done."""
    world = World.make(
        WorldSpec(seed=options.seed, members=options.members, titles=options.titles, days=options.log_days)
    )
    tell("writing the log")
    fitted_looks, log = _log(world, options.base)
    tell("training the model")
    fitted = _fitted(zoo, options, log, folder)
    tell("judging pages")
    later = going_on(world, options.judged_days)
    judged, held_out = _judged(fitted, options, later)
    model = PageReward.fit(fitted_looks.looks())
    values = {arm: _metrics(judged, arm, model, later) for arm in options.arms}
    tell("the simulated A/B")
    return PagesStudy(
        options=options,
        **_intervals(values, judged.member, options),
        coverage={arm: page_coverage(titles, options.titles) for arm, titles in judged.titles.items()},
        error=reward_error(model, fitted_looks.looks(), held_out.looks()),
        online=_online(fitted, options, world),
        fitted=fitted,
        pages=len(judged.member),
    )


def group(world: World, of: tuple[int, ...]) -> Bools:
    """Return [M] the members of a group."""
    return np.isin(np.arange(len(world.people)) % GROUPS, of)


def _log(world: World, base: str) -> tuple[LookLog, SimulatedLog]:
    """Write the log; note what the second group looked at in its later half."""
    looks = LookLog(group(world, REWARD), (world.spec.days // 2, world.spec.days))
    events = simulate(world, load_policy(base), keep_log=True, watch=looks.watch).interactions
    train = world.member_ids.filter(pl.Series(group(world, TRAIN)))
    own = events.filter(pl.col("member_id").is_in(train.implode()))
    return looks, SimulatedLog(world, own, world.spec.end, own)


def _fitted(zoo: Zoo, options: PagesOptions, log: SimulatedLog, folder: Path) -> Fitted:
    resolved = pages_model(zoo, replace(options.recipe, seed=options.seed))
    split = make_split("global_time_successive", log.interactions())
    return fit_model(log, resolved, split, NoFeatures(), folder)


def _judged(fitted: Fitted, options: PagesOptions, later: World) -> tuple[JudgedPages, LookLog]:
    """Let every arm build the third group's pages after the log, and see what they looked at and played."""
    base = load_policy(options.base)
    judged = group(later, JUDGED)
    arms = {arm: page_spec(arm) for arm in options.arms}
    policy = page_policy(fitted, later, arms[options.arms[0]])
    probe = Probe(base, policy, arms, judged, options.log_days, options.most_pages)
    looks = LookLog(judged, (options.log_days, later.spec.days))
    outcome = simulate(later, probe, keep_log=True, watch=looks.watch)
    return gathered(probe, outcome, later), looks


def page_policy(fitted: Fitted, world: World, page: PageSpec) -> PagePolicy:
    """Return the model as a policy whose pages keep to a specification."""
    policy = PagePolicy(page.strategy, fitted.scorer(world, NoFeatures()), fitted.bundle.resolved, world, NoFeatures())
    policy.page = page
    return policy


def _metrics(judged: JudgedPages, arm: str, model: PageReward, world: World) -> dict[str, Floats64]:
    titles, facts = judged.titles[arm], judged.facts[arm]
    there = titles >= 0
    found = {
        f"recall@{view.rows}x{view.columns}": page_recall(titles, *judged.relevant, view.rows, view.columns)
        for view in (VIEWPORTS["tv"], VIEWPORTS["phone"])
    }
    for m in (1, 2, 5):
        found[f"recall@{m}x6"] = page_recall(titles, *judged.relevant, m, 6)
    return found | {
        "discovery_recall@3x6": page_recall(titles, *judged.discovered, 3, 6),
        "page_ndcg": page_ndcg(titles, *judged.relevant),
        "diversity": page_diversity(titles[:, :3, :6], world.catalogue.genre),
        "duplicate_rate": duplicate_rate(titles),
        "held_out_reward": model.reward(facts, there),
        "held_out_discovery": model.reward(facts, there, (~judged.known[arm]).astype(np.float64)),
    }


def _intervals(
    values: Mapping[str, Mapping[str, Floats64]], member: Ints64, options: PagesOptions
) -> dict[str, dict[str, dict[str, Interval]]]:
    """Return intervals of every metric, and of its difference from the first arm's, by member."""
    first = values[options.arms[0]]
    found: dict[str, dict[str, dict[str, Interval]]] = {"arms": {}, "differences": {}}
    for arm, metrics in values.items():
        for kind, of in (("arms", metrics), ("differences", {name: metrics[name] - first[name] for name in metrics})):
            found[kind][arm] = {name: _interval(one, member, options.seed) for name, one in of.items()}
    return found


def _interval(values: Floats64, member: Ints64, seed: int) -> Interval:
    known = ~np.isnan(values)
    return MemberBootstrap(member[known], RESAMPLES, seed).intervals(values[known, None])[0]


def _online(fitted: Fitted, options: PagesOptions, world: World) -> AbReport:
    live = going_on(world, options.test_days, options.test_members)
    arms = {arm: page_policy(fitted, live, page_spec(arm)) for arm in options.arms}
    test = Test(options.log_days, load_policy(options.base), (options.seed,))
    return simulated_ab(live, arms, test, about={"base": options.base})


RELEVANT_DAYS = 7  # A play within so many days makes its title relevant to a page


@dataclass(frozen=True)
class JudgedPages:
    """N pages of the third group as every arm built them, and what their members played in the week after."""

    member: Ints64  # [N]
    titles: dict[str, Ints64]  # Arm -> [N, R, C]
    facts: dict[str, Floats64]  # Arm -> [N, R, C, F]
    known: dict[str, Bools]  # Arm -> [N, R, C] titles that the member had played before
    relevant: tuple[Ints64, Ints64]  # [M] pages and titles of plays in the days after each page
    discovered: tuple[Ints64, Ints64]  # [M] those of them that the member had never played


@dataclass
class Probe:
    """The log's own policy, which lets every arm build some members' pages and shows none of them."""

    base: Policy
    policy: PagePolicy
    arms: Mapping[str, PageSpec]  # Arm -> what its pages keep to
    members: Bools  # [M] whose pages are built
    from_day: int
    most: int  # Pages at most
    parts: list[dict[str, Any]] = field(default_factory=list)
    taken: int = 0

    @property
    def name(self) -> str:
        """The base's name."""
        return self.base.name

    def answer(self, request: PolicyRequest, rng: np.random.Generator) -> Slates:
        """Let the base answer."""
        return self.base.answer(request, rng)

    def probabilities(self, request: PolicyRequest, titles: Ints32) -> Floats32:
        """Return the base's probabilities."""
        return self.base.probabilities(request, titles)

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


def gathered(probe: Probe, outcome: RunOutcome, world: World) -> JudgedPages:
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


def plays_after(member: Ints64, at_us: Ints64, events: pl.DataFrame, world: World) -> pl.DataFrame:
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
