"""Methods of a project that answer requests, by the code of the server."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Unpack

from playbill.config import Workspace
from playbill.project.arguments import Situation, moment_of, request_of
from playbill.project.references import registered_reference

if TYPE_CHECKING:
    from playbill.serving import ActiveModel, Recommender, RecommendRequest, RecommendResponse
    from playbill.serving.explain import Explanation
    from playbill.serving.local import LocalRecommender
    from playbill.training.watch import ProgressListener
    from playbill.versions.promotion import PromotionLog


class RequestMethods:
    """Lists, pages, and why a title is in them or is not."""

    workspace: Workspace
    _recommenders: dict[tuple[str, int | None], LocalRecommender]

    def recommend(
        self,
        member_id: str | None = None,
        canvas: str | None = None,
        *,
        model: str | None = None,
        version: int | None = None,
        progress: ProgressListener | None = None,
        **situation: Unpack[Situation],
    ) -> RecommendResponse:
        """Answer one request by the code of the server, and log it as the server does.

        The first call loads the model and what is known of titles and members, which takes seconds; so does the next
        one after a promotion, an ingest or a new day. What is loaded is told to `progress`, else logged at INFO.

        Args:
            member_id: Who asks; absent or unknown: someone without a history.
            canvas: Where titles are shown (default: home, or the model's first canvas).
            model: Model that answers, or `name:3` (default: the promoted one).
            version: A registered version (default: the approved one).
            progress: Hears what is loaded, if anything.
            situation: What else is known, see `Situation`.

        Raises:
            UnknownNameError: No such canvas or version.
            NotFoundError: No such source title.
            RequestError: The canvas needs a query or a source title, or a field is unknown or wrong.
            StateError: Nothing has been ingested yet.

        Example:
            >>> project.recommend("42", "search", query="star w", k=5).to_polars()
        """
        recommender, _, request = self._request(member_id, canvas, model, version, situation, progress)
        return recommender.recommend(request)

    def page(
        self,
        member_id: str | None = None,
        canvas: str | None = None,
        *,
        model: str | None = None,
        version: int | None = None,
        progress: ProgressListener | None = None,
        **situation: Unpack[Situation],
    ) -> RecommendResponse:
        """Lay out a canvas's page: its rows in order, each with its titles and why it is where it is.

        Takes what `recommend` takes.

        Raises:
            RequestError: The canvas has no rows; and what `recommend` raises.

        Example:
            >>> project.page("42", k=8).to_polars()
        """
        from playbill.serving.request_context import require_rows

        recommender, active, request = self._request(member_id, canvas, model, version, situation, progress)
        return recommender.recommend(require_rows(active, request))

    def explain(
        self,
        title: str,
        member_id: str | None = None,
        canvas: str | None = None,
        *,
        model: str | None = None,
        version: int | None = None,
        progress: ProgressListener | None = None,
        **situation: Unpack[Situation],
    ) -> Explanation:
        """Say why a title is in an answer or is not: what rules say of it, and which heads and terms rank it.

        Takes the title's id or exact name, then what `recommend` takes. Nothing is logged.

        Raises:
            NotFoundError: No such title; and what `recommend` raises.

        Example:
            >>> project.explain("Toy Story", "42", "home").places[0].verdict
            'at place 3'
        """
        from playbill.serving.request_context import find_title

        recommender, active, request = self._request(member_id, canvas, model, version, situation, progress)
        return recommender.explain(request, find_title(active, title))

    @cached_property
    def _approvals(self) -> PromotionLog:
        """Where each request looks up which model is promoted; its database is opened once."""
        from playbill.versions.promotion import PromotionLog

        return PromotionLog(self.workspace)

    def _request(
        self,
        member_id: str | None,
        canvas: str | None,
        model: str | None,
        version: int | None,
        situation: Situation,
        progress: ProgressListener | None,
    ) -> tuple[Recommender, ActiveModel, RecommendRequest]:
        """Check the arguments of a call, and return what answers it with the request to that."""
        from playbill.serving.loading import served_model
        from playbill.serving.local import LocalRecommender

        situation["at"] = moment_of(situation.get("at"))  # a wrong moment is told before the workspace is opened
        model, version = registered_reference(model, version)
        key = (model or served_model(self.workspace, self._approvals), version)
        heard = None if progress is None else progress.stage
        if key not in self._recommenders:
            self._recommenders[key] = LocalRecommender(self.workspace, *key, progress=heard)
        recommender, active = self._recommenders[key].current(heard)
        return recommender, active, request_of(active, member_id, canvas, situation)
