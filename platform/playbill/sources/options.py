"""Options of the sources that ship with Playbill. Sources themselves are imported when one is run."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict


class SourceOptions(BaseModel):
    """Options of one source. An unknown option is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class MovieLensOptions(SourceOptions):
    """Options of the MovieLens sources."""

    path: Path | None = None
    """The publisher's zip file, or a folder with its content; without one it is downloaded."""


class KuaiRandOptions(SourceOptions):
    """Options of the KuaiRand sources."""

    path: Path | None = None
    """The publisher's tar.gz file, a folder with its content, or a folder of parquet tables; else it is downloaded."""


class ParquetOptions(SourceOptions):
    """Options of `parquet`."""

    path: Path
    """Folder that the mapping's file names are relative to."""
    mapping: Path
    """YAML file that says which file and column feeds which canonical column."""


class SqlOptions(SourceOptions):
    """Options of `sql`."""

    url: str
    """Any SQLAlchemy URL; `${NAME}` is taken from the environment, so passwords stay out of shell histories."""
    mapping: Path
    """YAML file that says which query and column feeds which canonical column."""
