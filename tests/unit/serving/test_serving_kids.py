"""No way leads from a kids' profile, or from a canvas for kids, to a title that is not marked for kids."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import numpy as np
import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st

from fixtures import made_catalogue as made
from fixtures import serving_world as world
from fixtures.made_catalogue import IDS, NOW
from playbill.clock import FixedClock
from playbill.datasets import Request
from playbill.definitions.specs import FALLBACKS, CandidatesSpec, CanvasSpec, ResolvedModel, RowSpec
from playbill.ranking.candidates import Catalogue
from playbill.ranking.fallbacks import PlayLog
from playbill.ranking.page_scores import PageScores, blend_page
from playbill.serving import ActiveModel, CatalogSnapshot, ModelHandle, Recommender, RecommendRequest
from playbill.serving.active_model import Members
from playbill.serving.ranking_context import MemberState, ServedFeatures

GENERATORS: tuple[dict[str, Any], ...] = (
    {"title": {"en": "{genre}"}, "generator": {"each": "genre"}},
    {"title": {"en": "Like {title}"}, "generator": {"each": "watched_title"}},
    {"title": {"en": "{character}"}, "generator": {"each": "character"}},
    {
        "title": {"en": "{mood} {genre}"},
        "generator": {
            "each": "combination",
            "minimum_titles": 1,
            "minimum_liked": 1,
            "words": {
                "genres": {genre: {"en": genre} for genre in made.GENRES},
                "moods": {genre: {"en": f"{genre}-like"} for genre in made.GENRES},
                "kinds": {kind: {"en": "{genre}"} for kind in ("film", "series", "game")},
                "era": {"en": "from the {decade}s"},
            },
        },
    },
)


class Favours:
    """A model that likes titles best that are not for kids."""

    def __init__(self, worth: Sequence[float], broken: bool) -> None:
        self.title_ids, self.worth, self.broken = IDS, np.array(worth, np.float32), broken

    def score(self, requests: Sequence[Request]) -> dict[str, np.ndarray]:
        if self.broken:
            raise RuntimeError("the weights are broken")
        return {"play": np.stack([self.worth] * len(requests))}

    def score_page(self, requests: Sequence[Request], blends: Sequence[dict[str, float]], masks: Any) -> PageScores:
        scores = self.score(requests)
        pairs = [(row, head) for row, weights in enumerate(blends) for head in weights]
        rows = [scores[head][row] for row, head in pairs]
        return blend_page(rows, pairs, {"play": "softmax"}, blends, masks)


class Facts:
    def __init__(self, history: pl.DataFrame, kids: bool) -> None:
        self.found = MemberState(history, ServedFeatures(), "DE", "en", kids)

    def read(self, served: ActiveModel, member_id: str | None, at: datetime, **how: Any) -> MemberState:
        return self.found


@st.composite
def rows(draw: Any, canvas: str) -> list[RowSpec]:
    found = []
    for number in range(draw(st.integers(0, 4))):
        by = draw(st.sampled_from([{"blend": {"play": 1.0}}, *({"policy": name} for name in FALLBACKS.names())]))
        short = draw(st.sampled_from([{}, {"when_short": "fallback"}]))
        body = {"name": f"{canvas}_{number}", "version": 1, "title": {"en": "Row"}, "canvas": canvas}
        made_of = draw(st.sampled_from([{}, *GENERATORS]))
        rules = draw(made.rules())
        length = draw(st.integers(1, 3))
        spec = {**body, **by, **short, **made_of, "candidates": rules, "minimum_length": length}
        found.append(RowSpec.model_validate(spec))
    return found


@settings(max_examples=60, deadline=None)
@given(
    titles=made.titles(),
    spans=made.availability(),
    history=made.history(),
    rules=st.tuples(made.rules(), made.rules()),
    more=st.tuples(rows("home"), rows("kids")),
    profile=st.booleans(),
    model=st.sampled_from(["model", "broken", "none"]),
    fallback=st.sampled_from(FALLBACKS.names()),
)
def test_no_title_that_is_not_for_kids_is_ever_returned(
    titles: pl.DataFrame,
    spans: pl.DataFrame,
    history: pl.DataFrame,
    rules: tuple[CandidatesSpec, CandidatesSpec],
    more: tuple[list[RowSpec], list[RowSpec]],
    profile: bool,
    model: str,
    fallback: str,
) -> None:
    base = world.resolved()
    on_kids = CandidatesSpec.model_validate({**rules[1].model_dump(exclude_none=True), "kids": True})
    shared = {"version": 1, "blend": {"play": 1.0}, "metric": "play", "fallback": fallback}
    canvases = {
        name: CanvasSpec.model_validate({"name": name, "candidates": own, **shared})
        for name, own in (("home", rules[0]), ("kids", on_kids))
    }
    specs = {row.name: row for row in (*more[0], *more[1])}
    resolved = ResolvedModel(model=base.model, labels=base.labels, rewards={}, canvases=canvases, rows=specs)
    snapshot = Catalogue(IDS, titles, spans)
    members = pl.DataFrame({"member_id": ["m"], "country": ["DE"], "language": ["en"], "kids_profile": [profile]})
    held = CatalogSnapshot("s", snapshot, PlayLog(snapshot, history), Members(members), frozenset({"DE", "US"}))
    scorer = None if model == "none" else Favours((~snapshot.kids).astype(float).tolist(), model == "broken")
    served = ActiveModel("tiny", resolved, held, scorer, version=1)
    recommender = Recommender(ModelHandle(served), Facts(history, profile), FixedClock(NOW))  # type: ignore[arg-type]
    for canvas in ("home", "kids") if profile else ("kids",):
        response = recommender.recommend(RecommendRequest(canvas=canvas, member_id="m", k=8))
        lists = [response.items, *(row.items for row in response.rows or ())]
        assert all(snapshot.kids[IDS.index(item.title_id)] for items in lists for item in items)
        named = {row.row_id.partition(":")[2] for row in response.rows or () if row.title.startswith("Like ")}
        assert all(snapshot.kids[IDS.index(title)] for title in named)
