"""Methods of a project that bring data in and work out its features."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from playbill.config import Workspace
from playbill.project.arguments import by_stage, moment_of

if TYPE_CHECKING:
    from playbill.features import ApplyReport, BuildReport, MaterializeReport
    from playbill.sources import IngestReport, PushReport
    from playbill.training.watch import ProgressListener


class DataMethods:
    """From a source to tables, and from these to feature values, as of every moment and in the online store."""

    workspace: Workspace

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
            Rows by table, first and last event, notes, and the protocol that models are held out by unless their
            definition names one; `samples` are frames.

        Raises:
            UnknownNameError: There is no such source.
            ConfigError: The source does not take these options.
            DataError: The data has mistakes; all are named, and the tables are as before.
            DefinitionError: The mapping has mistakes; all are named.
            ServiceError: The data cannot be reached.

        Example:
            >>> project.ingest("parquet", "export", mapping="shop.yaml", dry_run=True).rows
        """
        from playbill.datasets.protocol_choice import choose_protocol
        from playbill.datasets.splits import SPLIT_COLUMNS
        from playbill.sources import ingest
        from playbill.tables import Tables

        given = {"path": path, **options}
        chosen = {name: value for name, value in given.items() if value is not None}
        heard = None if progress is None else by_stage(progress)
        report = ingest(self.workspace, source, chosen, dry_run=dry_run, progress=heard)
        if dry_run:
            return report
        choice = choose_protocol(Tables(self.workspace).interactions(columns=SPLIT_COLUMNS))
        return replace(report, protocol=choice.protocol, protocol_reason=choice.reason)

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
