"""A policy that learns from its service's log alone, weighed by a reward, and learns anew every week.

Reward-weighted logistic regression over what was shown (label = sign, weight = magnitude; GenPage, arXiv 2606.31031):
a bias for every title, the member's likeness to its genres and language, its popularity, and where it was shown.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

import numpy as np
import polars as pl
from scipy import sparse
from sklearn.linear_model import LogisticRegression

from playbill.definitions.specs import LabelSpec, RewardSpec
from playbill.labels import label_events
from playbill.rewards import DelayedFeedback, DelayedSettings, reward_values, slate_values
from playbill.training.example_weights import loss_weights
from playbill_lab.simulator.policies.policies import PlackettLuce, ScoredPolicy, shares
from playbill_lab.simulator.policies.policy_request import PolicyRequest, Slates
from playbill_lab.simulator.world import canvases as on
from playbill_lab.simulator.world.world import World

DAY = timedelta(days=1)
LIKENESS = 3
"""Numbers of a shown title besides its own bias and where it was shown: genres, language, popularity."""

_PREVIEWS = [on.CANVASES[code] for code in on.PREVIEWS]


@dataclass(frozen=True)
class Objective:
    """What a policy learns from: a reward, and what is done about terms that are too young."""

    reward: RewardSpec
    labels: dict[str, LabelSpec]
    young: str
    """`predict` them, `ignore` them (as zeros), `wait` until nothing is young, or `drop` delayed terms altogether."""
    settings: DelayedSettings

    def values(self, log: pl.DataFrame, world: World, as_of: datetime) -> pl.DataFrame:
        """Return event_id and value of every impression that may be learnt from."""
        reward = at_once(self.reward) if self.young == "drop" else self.reward
        outcomes = label_events(list(self.labels.values()), log, as_of, world.availability, world.titles)
        predictor = None
        if self.young == "predict":
            predictor = DelayedFeedback.fit(
                reward, self.labels, outcomes, log, as_of, world.availability, self.settings
            )
        worth = slate_values(reward_values(reward, self.labels, outcomes, log, as_of, predictor), log)
        if self.young != "wait":
            return worth
        longest = max(label.matures_after for label in self.labels.values())
        old = log.filter(pl.col("event_at") + longest <= as_of).select("event_id")
        return worth.join(old, on="event_id", how="semi", maintain_order="left")


def at_once(reward: RewardSpec) -> RewardSpec:
    """Return a reward without its delayed terms."""
    terms = {name: term for name, term in reward.terms.items() if name not in reward.delayed}
    return reward.model_copy(update={"terms": terms, "delayed": ()})


@dataclass(frozen=True)
class Shown:
    """Impressions as inputs. Letter m counts them.

    Args:
        inputs: [m, T + LIKENESS + canvases + rows + 1].
        played: [m] whether each was played in its request.
        member: [m] numbers of members.
        members: M, how many there are.
        event_id: [m].
        at: [m] moments.
    """

    inputs: sparse.csr_matrix
    played: np.ndarray
    member: np.ndarray
    members: int
    event_id: pl.Series
    at: pl.Series


def shown(log: pl.DataFrame, world: World) -> Shown:
    """Read the impressions of titles that could be played, each with what was known of its member before it."""
    log = log.with_columns(
        title=_codes(log["title_id"], world.title_ids), member=_codes(log["member_id"], world.member_ids)
    ).with_row_index("place")
    key = ["request_id", "title_id"]
    plays = log.filter(pl.col("action") == "play").select(*key).unique().with_columns(played=pl.lit(value=True))
    rows = log.filter((pl.col("action") == "impression") & (pl.col("title") >= 0) & ~pl.col("canvas").is_in(_PREVIEWS))
    rows = rows.join(plays, on=key, how="left", maintain_order="left").with_columns(
        pl.col("played").fill_null(value=False)
    )
    title, place = rows["title"].to_numpy(), rows["place"].to_numpy().astype(np.int64)
    catalogue = world.catalogue
    genre = (_before(log, catalogue.genre)[place] * catalogue.genre[title]).sum(axis=1)
    spoken = np.eye(len(catalogue.languages), dtype=np.float32)[catalogue.language]
    language = (_before(log, spoken)[place] * spoken[title]).sum(axis=1)
    likeness = np.stack([genre, language, _popularity(log, rows, world)], axis=1)
    where = _where(
        pl.Series(rows["canvas"])
        .replace_strict(on.CANVASES, range(len(on.CANVASES)), return_dtype=pl.Int64)
        .to_numpy(),
        rows["row_id"].str.split(":").list.first().replace_strict(on.ROWS, range(len(on.ROWS)), default=-1).to_numpy(),
    )
    one = sparse.csr_matrix(
        (np.ones(len(title), np.float32), (np.arange(len(title)), title)), (len(title), len(catalogue))
    )
    inputs = sparse.hstack([one, sparse.csr_matrix(likeness), where], format="csr")
    played, member = rows["played"].to_numpy(), rows["member"].to_numpy()
    return Shown(inputs, played, member, len(world.member_ids), rows["event_id"], rows["event_at"])


def fitted(seen: Shown, values: pl.DataFrame, world: World) -> np.ndarray:
    """Fit the regression on impressions that have a value; return its coefficients."""
    worth = pl.DataFrame({"event_id": seen.event_id}).join(
        values.select("event_id", "value"), on="event_id", how="left", maintain_order="left"
    )["value"]
    rows = np.flatnonzero(worth.is_not_null().to_numpy())
    labels, weights = loss_weights(worth.to_numpy()[rows], seen.played[rows].astype(np.float32), "bce")
    model = LogisticRegression(C=0.3, max_iter=60, tol=1e-3)
    model.fit(seen.inputs[rows], labels, sample_weight=weights)
    return np.asarray(model.coef_[0], np.float32)


class Relearning(ScoredPolicy):
    """Fills pages by the service's own policy until a day, then by what it has learnt, anew every week.

    Args:
        name: Of the arm.
        objective: What it learns from.
        first_day: When it takes over.
        every: Days from one learning to the next.
        sharpness: Log odds of a place per log odds of the regression.
    """

    def __init__(self, name: str, objective: Objective, first_day: int, every: int = 7, sharpness: float = 1.5) -> None:
        self.name, self.objective = name, objective
        self.first_day, self.every, self.sharpness = first_day, every, sharpness
        self._start, self._learnt_on, self._learnt = PlackettLuce(), -1, np.zeros(0, np.float32)

    def answer(self, request: PolicyRequest, rng: np.random.Generator) -> Slates:
        """Learn when it is time to, then draw lists."""
        day = request.state.day
        if day >= self.first_day and (day - self.first_day) % self.every == 0 and day != self._learnt_on:
            self._learnt_on = day
            self._learn(request, request.world.spec.start + day * DAY)
        return super().answer(request, rng)

    def _learn(self, request: PolicyRequest, as_of: datetime) -> None:
        assert request.log is not None
        log = request.log.frame().filter(pl.col("recorded_at") <= as_of)
        values = self.objective.values(log, request.world, as_of)
        self._learnt = fitted(shown(log, request.world), values, request.world)

    def logits(self, request: PolicyRequest) -> np.ndarray:
        """Return [N, T]."""
        if self._learnt_on < 0:
            return self._start.logits(request)
        state, catalogue = request.state, request.world.catalogue
        bias, (genre, language, popularity) = np.split(self._learnt[: len(catalogue) + LIKENESS], [len(catalogue)])
        found = genre * shares(state.genre_plays[request.member]) @ catalogue.genre.T + bias
        found += language * shares(state.language_plays[request.member])[:, catalogue.language]
        found += popularity * state.log_plays_7d[request.country]
        if (request.canvas == on.SEARCH).any():
            found += 12.0 * request.matches()
        return np.asarray(self.sharpness * found, np.float32)


def auc_by_member(weights: np.ndarray, seen: Shown, since: datetime) -> np.ndarray:
    """Return [M] how well coefficients tell what each member played among the impressions from a moment on.

    The area under the ROC curve within a member; nan for who played all or nothing of what they saw.
    """
    rows = np.flatnonzero((seen.at >= since).to_numpy())
    frame = pl.DataFrame(
        {"member": seen.member[rows], "played": seen.played[rows], "told": seen.inputs[rows] @ weights}
    )
    ranked = frame.with_columns(rank=pl.col("told").rank("average").over("member"))
    ones, zeros = pl.col("played").sum(), (~pl.col("played")).sum()
    above = pl.col("rank").filter("played").sum() - ones * (ones + 1) / 2
    found = ranked.group_by("member").agg(auc=pl.when((ones > 0) & (zeros > 0)).then(above / (ones * zeros)))
    auc = np.full(seen.members, np.nan)
    auc[found["member"].to_numpy()] = found["auc"].fill_null(float("nan")).to_numpy()
    return auc


def _codes(ids: pl.Series, known: pl.Series) -> pl.Series:
    return ids.replace_strict(known, range(len(known)), default=-1, return_dtype=pl.Int64)


def _before(log: pl.DataFrame, of_title: np.ndarray) -> np.ndarray:
    """Return [n, G]: the shares of kinds of title in a member's plays before each event of a log sorted by member."""
    play = ((log["action"] == "play") & (log["title"] >= 0)).to_numpy()
    counts = np.where(play[:, None], of_title[log["title"].to_numpy()], 0.0).astype(np.float32)
    total = np.cumsum(counts, axis=0, dtype=np.float64) - counts
    member = log["member"].to_numpy()
    first = np.searchsorted(member, member) if (np.diff(member) >= 0).all() else _first_of_run(member)
    return shares(total - total[first])


def _first_of_run(member: np.ndarray) -> np.ndarray:
    starts = np.flatnonzero(np.concatenate([[True], member[1:] != member[:-1]]))
    return np.repeat(starts, np.diff(np.concatenate([starts, [len(member)]])))


def _popularity(log: pl.DataFrame, rows: pl.DataFrame, world: World) -> np.ndarray:
    """Return [m] log(1 + plays of seven full days in the country), as the service counts them."""
    day = ((pl.col("event_at") - world.spec.start).dt.total_days()).cast(pl.Int64)
    country = _codes(rows["country"], pl.Series(world.countries))
    plays = log.filter(pl.col("action") == "play").select(day.alias("day"), "country", "title", "member", "request_id")
    plays = plays.unique().with_columns(country=_codes(plays.unique()["country"], pl.Series(world.countries)))
    count = np.zeros((world.spec.days + 8, len(world.countries), len(world.catalogue)), np.float32)
    np.add.at(count, tuple(plays[name].to_numpy() for name in ("day", "country", "title")), 1)
    total = np.concatenate([np.zeros_like(count[:1]), np.cumsum(count, axis=0)])
    now = rows.select(day)["event_at"].to_numpy()
    title, place = rows["title"].to_numpy(), country.to_numpy()
    return np.log1p(total[now, place, title] - total[np.maximum(now - 7, 0), place, title])


def _where(canvas: np.ndarray, row: np.ndarray) -> sparse.csr_matrix:
    number = np.arange(len(canvas))
    width = len(on.CANVASES) + len(on.ROWS) + 1
    ones = np.ones(2 * len(canvas), np.float32)
    columns = np.concatenate([canvas, len(on.CANVASES) + 1 + row])
    return sparse.csr_matrix((ones, (np.concatenate([number, number]), columns)), (len(canvas), width))
