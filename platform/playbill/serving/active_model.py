"""What one server answers with: a model over one state of the tables, held by one reference."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt
import polars as pl

from playbill.datasets import Request
from playbill.definitions.specs import CanvasSpec, ContextColumn, ResolvedModel, RowSpec
from playbill.definitions.specs.context import own_fields
from playbill.errors import IntegrityError
from playbill.ranking.blend import head_losses
from playbill.ranking.candidates import Catalogue, Mask
from playbill.ranking.page_rules import RowEntry
from playbill.ranking.page_scores import PageScores
from playbill.ranking.popularity import PLAY_COLUMNS, PlayLog
from playbill.ranking.row_plans import prepare_rows
from playbill.schema import UNKNOWN_COUNTRY
from playbill.serving.messages import NotFoundError, not_found
from playbill.tables import Tables

if TYPE_CHECKING:
    from playbill.ranking.scoring.row_scoring import PageState

HeadLogits = Mapping[str, npt.NDArray[np.floating[Any]]]
PROFILE_COLUMNS = ("country", "language", "kids_profile")


class RequestScorer(Protocol):
    """Scores every title for every request; safe to share between threads. `ranking.scoring.scorer.Scorer` is one."""

    @property
    def title_ids(self) -> Sequence[str]:
        """[T] one id per column."""
        ...

    def score(self, requests: Sequence[Request]) -> HeadLogits:
        """Return head -> [N, T] logits."""
        ...

    def score_page(
        self, requests: Sequence[Request], blends: Sequence[Mapping[str, float]], candidates: Mask
    ) -> PageScores:
        """Return the blend of each row of one page over its candidates [R, T]."""
        ...

    def term_parts(self, request: Request, head: str) -> Mapping[str, tuple[float, npt.NDArray[np.float32]]]:
        """Return term of the history -> its weight in a head's scores, and its [T] values; only those that weigh."""
        ...

    def page_states(self, requests: Sequence[Request]) -> list[PageState]:
        """Return what heads about rows and pages see of each request; empty where there are none."""
        ...


class Members:
    """The newest row of every member, found by binary search.

    Args:
        frame: Rows of `members`, one per member, in any order.
    """

    def __init__(self, frame: pl.DataFrame) -> None:
        ordered = frame.select("member_id", *PROFILE_COLUMNS).sort("member_id")
        self._ids, self._profiles = ordered.get_column("member_id"), ordered.drop("member_id")

    def profile(self, member_id: str) -> dict[str, Any] | None:
        """Return country, language and kids_profile of a member, None when there is no such member."""
        row = bisect_left(self._ids, member_id)
        if row >= len(self._ids) or self._ids[row] != member_id:
            return None
        return self._profiles.row(row, named=True)


@dataclass(frozen=True)
class CatalogSnapshot:
    """One published state of the canonical tables, as far as answering needs it.

    Args:
        snapshot_id: Which state.
        catalogue: Titles in the order of the scorer's columns.
        plays: Every play of the tables, read when it is first needed.
        members: Newest row of every member.
        countries: Countries ever seen; any other one is unknown.
        main_country: Where most members are; None where no member's country is known.
    """

    snapshot_id: str
    catalogue: Catalogue
    plays: PlayLog
    members: Members
    countries: frozenset[str]
    main_country: str | None = None

    @classmethod
    def read(cls, tables: Tables, title_ids: Sequence[str] | None = None) -> CatalogSnapshot:
        """Read the tables once.

        Args:
            tables: Of the workspace.
            title_ids: Order of the columns; every title by id where absent.

        Raises:
            StateError: Nothing has been ingested yet.
        """
        titles = tables.titles()
        catalogue = Catalogue(title_ids or titles["title_id"].to_list(), titles, tables.availability())
        members = tables.members()
        known = members.get_column("country").drop_nulls().filter(members["country"].drop_nulls() != UNKNOWN_COUNTRY)
        return cls(
            snapshot_id=tables.snapshot_id(),
            catalogue=catalogue,
            plays=PlayLog(catalogue, partial(tables.interactions, columns=PLAY_COLUMNS)),
            members=Members(members),
            countries=frozenset(tables.vocabulary("country").entries),
            main_country=known.cast(pl.String).mode().sort().first() if len(known) else None,  # type: ignore[arg-type]
        )


@dataclass(frozen=True, slots=True)
class ServedKey:
    """Which version, over which state of the tables, on which day of the workspace's clock."""

    version: int | None
    digest: str | None
    snapshot_id: str
    day: date | None = None


@dataclass(frozen=True)
class ActiveCanvas:
    """What requests on a canvas have in common.

    Args:
        spec: Its definition.
        requested_as: The canvas that the model is asked for.
        rows: Definitions of its rows, in the order they are written in.
        fields: Context fields of outside packages that it reads.
        absent_rows: Row -> why this version of the model cannot fill it.
        notes: What every answer lacks.
    """

    spec: CanvasSpec
    requested_as: str
    rows: tuple[RowSpec, ...]
    fields: Mapping[str, ContextColumn]
    absent_rows: Mapping[str, str]
    notes: tuple[str, ...]

    @classmethod
    def of(cls, spec: CanvasSpec, resolved: ResolvedModel, gap: str | None) -> ActiveCanvas:
        """Read a canvas of a model; `gap` is why title features are missing."""
        notes = [f"title features are imputed as missing: {gap}"] if gap else []
        if lost := resolved.left_out.blends.get(spec.name):
            them = "it" if len(lost) == 1 else "them"
            notes.append(f"ranked without {', '.join(lost)}: the log had no examples for {them}")
        requested_as = spec.requested_as
        absent = resolved.left_out.rows.get(requested_as, {})
        rows = tuple(resolved.rows_of(requested_as))
        return cls(spec, requested_as, rows, own_fields(spec.context), absent, tuple(notes))


@dataclass(frozen=True)
class ActiveModel:
    """A model as it is served. Never changed: a new version or new data make a new one.

    Args:
        model: Its name.
        resolved: Its definition with everything it refers to.
        snapshot: Titles, members and plays.
        scorer: The network over these titles; None while no version is approved, so that fallbacks answer.
        plain_scorer: The same network without title features, for when they cannot be read.
        version: Registered version.
        digest: Of its bundle.
        facts_version: Which definition of features it was trained with.
        request_fields: What of a request its features are read by, beside member and moment.
        day: The day of the workspace's clock that titles' ages are told at.
        gap: Why `scorer` had to be made without title features; None when it has them.
    """

    model: str
    resolved: ResolvedModel
    snapshot: CatalogSnapshot
    scorer: RequestScorer | None = None
    plain_scorer: RequestScorer | None = None
    version: int | None = None
    digest: str | None = None
    facts_version: str | None = None
    request_fields: tuple[str, ...] = ()
    day: date | None = None
    gap: str | None = None

    def __post_init__(self) -> None:
        if self.scorer is not None and tuple(self.scorer.title_ids) != self.snapshot.catalogue.title_ids:
            raise IntegrityError(f"the columns of {self.model}:{self.version} are not those of its catalogue")

    @property
    def key(self) -> ServedKey:
        """What decides whether another one has to be loaded."""
        return ServedKey(self.version, self.digest, self.snapshot.snapshot_id, self.day)

    @property
    def complete(self) -> bool:
        """False when it is worth loading the same version again."""
        return self.gap is None

    @cached_property
    def canvases(self) -> dict[str, ActiveCanvas]:
        """Name -> canvas, as requests read it."""
        return {name: ActiveCanvas.of(spec, self.resolved, self.gap) for name, spec in self.resolved.canvases.items()}

    def canvas(self, name: str) -> ActiveCanvas:
        """Return a canvas that this version serves.

        Raises:
            NotFoundError: There is none of that name, or this version leaves it out.
        """
        canvases = self.canvases
        if name in canvases:
            return canvases[name]
        if name in self.resolved.left_out.canvases:
            reason = self.resolved.left_out.canvases[name]
            raise NotFoundError(f"canvas '{name}' is not served by this version of '{self.model}': {reason}")
        raise not_found("canvas", name, canvases)

    @cached_property
    def losses(self) -> dict[str, str]:
        """Head -> its loss."""
        return head_losses(self.resolved)

    def warm(self, at: datetime) -> None:
        """Score one request per canvas, so that the first member does not wait and a broken model is seen.

        Raises:
            IntegrityError: A score is missing or no number.
        """
        prepare_rows(self.resolved.rows.values(), self.snapshot.catalogue)
        self.snapshot.plays.load()
        if self.scorer is None:
            return
        titles = self.snapshot.catalogue.title_ids
        for canvas in (one.spec for one in self.canvases.values()):
            if canvas.target == "row":
                self._warm_rows(canvas, at)
                continue
            query = "a" if "query" in canvas.context else None
            source = titles[0] if titles and "source_title" in canvas.context else None
            logits = self.scorer.score([Request(canvas.name, at, query=query, source_title_id=source)])
            for head in canvas.blend:
                found = logits.get(head)
                if found is None or found.shape != (1, len(titles)) or not np.isfinite(found).all():
                    raise IntegrityError(f"{self.model}:{self.version} does not score {canvas.name} by {head}")

    def _warm_rows(self, canvas: CanvasSpec, at: datetime) -> None:
        assert self.scorer is not None
        rows = [RowEntry(row.name) for row in self.resolved.rows_of(canvas.requested_as)]
        states = self.scorer.page_states([Request(canvas.requested_as, at)])
        if not states or not np.isfinite(states[0].values(canvas.blend)(rows, [])).all():
            raise IntegrityError(f"{self.model}:{self.version} does not value the rows of {canvas.requested_as}")


@dataclass
class ModelHandle:
    """The one reference to what is served. A request takes it once and keeps what it got to its end."""

    current: ActiveModel
    swaps: int = field(default=0)

    def swap(self, served: ActiveModel) -> None:
        """Answer with another model from the next request on."""
        self.current = served
        self.swaps += 1
