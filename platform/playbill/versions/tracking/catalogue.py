"""The titles as they were known at registration, beside the bundle of an MLflow model.

Our servers read titles from the canonical tables. A plain MLflow model has no workspace, so it carries a copy.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import polars as pl

from playbill.clock import parse_moment
from playbill.config import Workspace
from playbill.files import replaced_folder
from playbill.tables import Tables, workspace_clock

TITLES, AVAILABILITY, ABOUT = "titles.parquet", "availability.parquet", "catalogue.json"


@dataclass(frozen=True)
class CatalogueCopy:
    """Canonical titles and availability, and the moment they were copied at."""

    titles: pl.DataFrame
    availability: pl.DataFrame
    as_of: datetime

    @classmethod
    def of(cls, workspace: Workspace) -> CatalogueCopy:
        """Copy the workspace's tables as they are at its clock.

        Raises:
            StateError: Nothing has been ingested yet.
        """
        tables = Tables(workspace)
        return cls(tables.titles(), tables.availability(), workspace_clock(workspace).now())

    def write(self, folder: Path) -> None:
        """Write it as a folder, which is made."""
        with replaced_folder(folder, "the catalogue's copy") as beside:
            self.titles.write_parquet(beside / TITLES)
            self.availability.write_parquet(beside / AVAILABILITY)
            (beside / ABOUT).write_text(json.dumps({"as_of": self.as_of.isoformat()}), encoding="utf-8")

    @classmethod
    def read(cls, folder: Path) -> CatalogueCopy:
        """Read what `write` wrote."""
        about = json.loads((folder / ABOUT).read_text(encoding="utf-8"))
        titles, availability = pl.read_parquet(folder / TITLES), pl.read_parquet(folder / AVAILABILITY)
        return cls(titles, availability, parse_moment(about["as_of"]))
