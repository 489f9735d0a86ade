"""`Project`: a project and one of its workspaces, with a method for each thing that the command line does.

Nothing is decided here: each method hands its arguments on to the room that does the work.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Unpack

from playbill.config import ProjectFolder, Workspace
from playbill.errors import ConfigError
from playbill.project.arguments import Situation, by_stage, moment_of, request_of
from playbill.project.references import definition_reference, registered_reference
from playbill.project.starting import start_project

if TYPE_CHECKING:
    from playbill.features import ApplyReport, BuildReport, MaterializeReport
    from playbill.foundation import PretrainOutcome
    from playbill.project.evaluation import EvaluationResult
    from playbill.serving import ActiveModel, Recommender, RecommendRequest, RecommendResponse
    from playbill.serving.explain import Explanation
    from playbill.serving.local import LocalRecommender
    from playbill.sources import IngestReport, PushReport
    from playbill.training.run import TrainOutcome
    from playbill.training.watch import ProgressListener
    from playbill.versions.promotion import Promotion


@dataclass(frozen=True)
class Project:
    """A project and the workspace that its methods work in.

    Example:
        >>> project = Project.open("my_service", workspace="shop")
        >>> project.ingest("parquet", "export", mapping="mapping.yaml").rows
        >>> project.train("everycanvas", epochs=2).to_polars()
        >>> project.promote("everycanvas:1").verdict
        'approved'
        >>> project.recommend("42", "home", k=5).to_polars()

    Args:
        workspace: Folder, database and clock of one service's data; `workspace.project` has the project's settings.
    """

    workspace: Workspace
    _recommenders: dict[tuple[str, int | None], LocalRecommender] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    @classmethod
    def open(cls, folder: Path | str | None = None, workspace: str | None = None) -> Project:
        """Open the project whose playbill.toml is in a folder or the nearest one above it.

        Args:
            folder: Where to begin (default: the current folder). Without any playbill.toml the defaults hold for it.
            workspace: Its name (default: the one that playbill.toml names). It need not have data yet.

        Raises:
            ConfigError: The folder does not exist, playbill.toml has mistakes, or this is no workspace name.
        """
        start = None if folder is None else Path(folder)
        return cls(ProjectFolder.find(start).workspace(workspace))

    @classmethod
    def create(cls, folder: Path | str, *, minimal: bool = False) -> Project:
        """Start a project: playbill.toml, model_zoo/ and feature_repo/. Nothing that is there is overwritten.

        Args:
            folder: Where to; made where it is not there.
            minimal: The smallest definitions, and mapping.yaml for a CSV of your own.

        Raises:
            ConfigError: One of its files is there already.
            StorageError: The folder cannot be written.
        """
        start_project(Path(folder), minimal=minimal)
        return cls.open(folder)

    def workspaces(self) -> tuple[str, ...]:
        """Return the names of all workspaces that are configured or have data."""
        return self.workspace.project.workspace_names()

    def select(self, workspace: str) -> Project:
        """Return this project with another workspace chosen, as `playbill -w NAME` does."""
        return Project(self.workspace.project.workspace(workspace))

    def ingest(
        self,
        source: str,
        path: Path | str | None = None,
        *,
        dry_run: bool = False,
        progress: ProgressListener | None = None,
        **options: Any,
    ) -> IngestReport:
        """Replace the workspace's tables by the data of a source.

        Args:
            source: Such as `movielens_100k`, `parquet` or `sql`.
            path: A downloaded archive, or the folder of your own files.
            dry_run: Check everything, report what would be written, and write nothing.
            progress: Hears of progress.
            options: What else the source takes, such as `mapping` (a YAML file) or `url` (of a database).

        Returns:
            Rows by table, first and last event, and notes; `samples` are frames.

        Raises:
            UnknownNameError: There is no such source.
            ConfigError: The source does not take these options.
            DataError: The data has mistakes; all are named, and the tables are as before.
            DefinitionError: The mapping has mistakes; all are named.
            ServiceError: The data cannot be reached.

        Example:
            >>> project.ingest("parquet", "export", mapping="shop.yaml", dry_run=True).rows
        """
        from playbill.sources import ingest

        given = {"path": path, **options}
        chosen = {name: value for name, value in given.items() if value is not None}
        heard = None if progress is None else by_stage(progress)
        return ingest(self.workspace, source, chosen, dry_run=dry_run, progress=heard)

    def push(
        self,
        events: Path | BinaryIO | None = None,
        *,
        titles: Path | None = None,
        members: Path | None = None,
        availability: Path | None = None,
        mapping: Path | None = None,
        compact: bool = False,
    ) -> PushReport:
        """Append what arrived later: events, and new versions of titles, members and availability.

        Args:
            events: File, or a stream of ndjson; `titles`, `members`, `availability` likewise.
            titles: New ones, and new versions of titles.
            members: New ones, and new versions of members.
            availability: New spans in which titles can be watched.
            mapping: YAML file that says which column feeds which canonical one.
            compact: Write into the day partitions what else would wait in the journal.

        Raises:
            StateError: Nothing has been ingested yet.
            DataError: Rows have mistakes; all are named, and nothing was written.
            DefinitionError: The mapping has mistakes.
        """
        from playbill.sources import push_files

        given = {"interactions": events, "titles": titles, "members": members, "availability": availability}
        files = {table: file for table, file in given.items() if file is not None}
        return push_files(self.workspace, files, mapping=mapping, compact=compact)

    def apply(self) -> ApplyReport:
        """Register the project's feature_repo in the workspace's Feast registry.

        Raises:
            ConfigError: Feast is not installed.
            DefinitionError: A definition is wrong.
            ServiceError: The registry cannot be reached.
        """
        from playbill.features import FeatureDoor

        return FeatureDoor(self.workspace).apply()

    def build_features(
        self, *, full: bool = False, until: datetime | str | None = None, progress: ProgressListener | None = None
    ) -> BuildReport:
        """Bring feature values up to date with the log, as of every moment they change.

        Args:
            full: Build every view anew, also where an increment would do.
            until: Values up to this moment (default: the workspace's clock).
            progress: Hears of progress.

        Raises:
            StateError: Nothing has been ingested yet, or another process is building.
            DataError: A view of your own fails, or knows the event it is joined to.
            DefinitionError: A definition in feature_repo is wrong.
        """
        from playbill.features import build_features

        if progress is not None:
            progress.stage("build features")
        heard = None if progress is None else lambda view, done, total: progress.advance(done, total, view)
        return build_features(self.workspace, heard, full=full, until=moment_of(until))

    def materialize(self, until: datetime | str | None = None) -> MaterializeReport:
        """Load the newest feature values into the online store.

        Args:
            until: Values up to this moment count (default: the workspace's clock).

        Raises:
            StateError: Nothing is registered, or a view was not built.
            ServiceError: The registry or the online store cannot be reached.
        """
        from playbill.features import FeatureDoor

        return FeatureDoor(self.workspace).materialize(moment_of(until))

    def train(
        self,
        model: str,
        *,
        definition: int | None = None,
        protocol: str | None = None,
        epochs: int | None = None,
        seed: int | None = None,
        workers: int | None = None,
        gpu: bool | None = None,
        sharded: bool | None = None,
        progress: ProgressListener | None = None,
    ) -> TrainOutcome:
        """Train a model, measure it on every canvas beside the baselines, and register it in MLflow.

        A run that was killed is resumed by the same call.

        Args:
            model: Of the zoo, by name.
            definition: Version of its definition (default: the newest).
            protocol: What is held out (default: the definition's, like the two that follow).
            epochs: Passes over the data.
            seed: Of weights, order and dropout.
            workers: 0 trains in this process, N on N Ray workers (default: the project's).
            gpu: Whether to use one (default: when there is one).
            sharded: Whether each worker holds a part of the network instead of all (default: the project's).
            progress: Hears of progress.

        Raises:
            DefinitionError: The zoo has mistakes.
            ConfigError: The model is written as a registered version, the cluster's address cannot be used, or a
                network is to be shared out among fewer than two workers.
            StateError: Data, features or a registry is missing; the text names the command to run first.
            DataError: The label of a head that is not optional has no positive row.
            ServiceError: MLflow, the feature store or the cluster cannot be reached.
        """
        from playbill.training.options import TrainOptions
        from playbill.training.run import train

        reference = definition_reference(model, definition, "train")
        return train(self.workspace, reference, TrainOptions(protocol, epochs, seed, workers, gpu, sharded), progress)

    def pretrain(
        self,
        model: str = "foundation",
        *,
        members: int | None = None,
        again: bool = False,
        progress: ProgressListener | None = None,
        **options: Any,
    ) -> PretrainOutcome:
        """Train a foundation model, register it, and publish its vectors; what the same run did before is not repeated.

        Args:
            model: Of the zoo, by name.
            members: Publish vectors of so many, those active last (default: all).
            again: Train anew, also where the same run has finished.
            progress: Hears of progress.
            options: `definition` to `sharded` of `train`, which raises the same.
        """
        from playbill.foundation import VectorOptions, pretrain
        from playbill.training.options import TrainOptions

        reference = definition_reference(model, options.pop("definition", None), "pretrain")
        given, vectors = TrainOptions(**options), VectorOptions(members=members)
        return pretrain(self.workspace, reference, given, vectors, progress, again=again)

    def evaluate(
        self,
        *references: str,
        protocol: str | None = None,
        canvas: str | None = None,
        row: str | None = None,
        label: str | None = None,
        baselines: Sequence[str] | None = None,
        slices: Sequence[str] | None = None,
        minimum_members: int | None = None,
        window: str | None = None,
        leakage_checks: bool = False,
        log: bool = True,
        progress: ProgressListener | None = None,
    ) -> EvaluationResult:
        """Measure registered versions under a named protocol, and compare them where there are several.

        Args:
            references: `model@champion`, `model:3`, or `model` for its newest version.
            protocol: What is held out (default: what each version was trained under).
            canvas: Canvas to ask (default: home, or the model's first one).
            row: One row instead of the whole canvas.
            label: What that row is judged by (default: the label of its blend's main head).
            baselines: Registered baselines (default: the model's).
            slices: Slices (default: the model's).
            minimum_members: Members that a slice's group needs (default: the model's).
            window: Of the protocol `replay`, such as `7d` (default: a day).
            leakage_checks: Try whether anything reads the future or the targets; see `require_no_leaks` of the result.
            log: Record the evaluation in MLflow.
            progress: Hears of progress.

        Raises:
            UnknownNameError: No such version, protocol, canvas, baseline or slice.
            ConfigError: No version or one twice is named, or options do not go together.
            ComparisonError: A version was trained on what the protocol holds out, or two hold out different rows.
            StateError: A slice asked for has too few members.

        Example:
            >>> project.evaluate("everycanvas@champion", canvas="search").to_polars()
        """
        from playbill.project.evaluation import EvaluationOptions, evaluate_versions

        if not references:
            raise ConfigError("name a version to evaluate, such as model@champion or model:3")
        others, groups = (None if names is None else tuple(names) for names in (baselines, slices))
        options = EvaluationOptions(
            protocol, canvas, row, label, others, groups, minimum_members, window, leakage_checks, log
        )
        return evaluate_versions(self.workspace, references, options, progress)

    def promote(self, reference: str) -> Promotion:
        """Make a version the champion, if its gates pass.

        Args:
            reference: `model:3`, `model@challenger`, or `model` for its newest version.

        Returns:
            The version, and what was decided about it: `verdict`, `reason` and `gates`.

        Raises:
            UnknownNameError: No such model, alias or version.
            StateError: Another controller did not decide in time.
            ServiceError: MLflow or the database cannot be reached.
        """
        from playbill.versions.promotion import promote

        return promote(self.workspace, reference)

    def rollback(self, model: str) -> Promotion:
        """Put the champion before the present one back. Quality gates are skipped, integrity checks are not.

        Raises:
            StateError: There is no earlier champion; and what `promote` raises.
        """
        from playbill.versions.promotion import rollback

        return rollback(self.workspace, model)

    def recommend(
        self,
        member_id: str | None = None,
        canvas: str | None = None,
        *,
        model: str | None = None,
        version: int | None = None,
        **situation: Unpack[Situation],
    ) -> RecommendResponse:
        """Answer one request by the code of the server, and log it as the server does.

        The model is loaded by the first call, and again when another one was promoted or data was ingested.

        Args:
            member_id: Who asks; absent or unknown: someone without a history.
            canvas: Where titles are shown (default: home, or the model's first canvas).
            model: Model that answers, or `name:3` (default: the promoted one).
            version: A registered version (default: the approved one).
            situation: What else is known, see `Situation`.

        Raises:
            UnknownNameError: No such canvas or version.
            NotFoundError: No such source title.
            RequestError: The canvas needs a query or a source title, or a field is unknown or wrong.
            StateError: Nothing has been ingested yet.

        Example:
            >>> project.recommend("42", "search", query="star w", k=5).to_polars()
        """
        recommender, _, request = self._request(member_id, canvas, model, version, situation)
        return recommender.recommend(request)

    def page(
        self,
        member_id: str | None = None,
        canvas: str | None = None,
        *,
        model: str | None = None,
        version: int | None = None,
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

        recommender, active, request = self._request(member_id, canvas, model, version, situation)
        return recommender.recommend(require_rows(active, request))

    def explain(
        self,
        title: str,
        member_id: str | None = None,
        canvas: str | None = None,
        *,
        model: str | None = None,
        version: int | None = None,
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

        recommender, active, request = self._request(member_id, canvas, model, version, situation)
        return recommender.explain(request, find_title(active, title))

    def _request(
        self, member_id: str | None, canvas: str | None, model: str | None, version: int | None, situation: Situation
    ) -> tuple[Recommender, ActiveModel, RecommendRequest]:
        """Check the arguments of a call, and return what answers it with the request to that."""
        from playbill.serving.loading import served_model
        from playbill.serving.local import LocalRecommender

        situation["at"] = moment_of(situation.get("at"))  # a wrong moment is told before the workspace is opened
        model, version = registered_reference(model, version)
        key = (model or served_model(self.workspace), version)
        if key not in self._recommenders:
            self._recommenders[key] = LocalRecommender(self.workspace, *key)
        recommender, active = self._recommenders[key].current()
        return recommender, active, request_of(active, member_id, canvas, situation)
