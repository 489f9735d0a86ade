"""The table of sources and their options; a source itself is imported when it is run.

Outside packages add their own through the entry-point group `playbill.sources`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from pydantic import BaseModel, ConfigDict

from playbill.registry import Plugin, Registry
from playbill.sources.canonicalise import Progress, SourceData


class Source(Protocol):
    """Outside data that can be offered to the canonical tables."""

    terms: str
    """Terms of use that are printed at every ingest; empty for a user's own data."""

    def open(self, scratch: Path, progress: Progress) -> tuple[SourceData, str]:
        """Find the data and offer it; return the offer, and one sentence on where the data came from.

        `scratch` is an empty folder for temporary files, removed when the offer has been read.

        Raises:
            DataError: The data is not what it should be.
            DefinitionError: The mapping has mistakes.
            ServiceError: The data cannot be reached.
        """
        ...


_MOVIELENS = "playbill.sources.registry:MovieLensOptions"
_KUAIRAND = "playbill.sources.registry:KuaiRandOptions"

SOURCES = Registry(
    "source",
    "playbill.sources",
    {
        "movielens_100k": Plugin("playbill.sources.movielens:MovieLens100K", _MOVIELENS),
        "movielens_1m": Plugin("playbill.sources.movielens:MovieLens1M", _MOVIELENS),
        "movielens_20m": Plugin("playbill.sources.movielens:MovieLens20M", _MOVIELENS),
        "movielens_32m": Plugin("playbill.sources.movielens:MovieLens32M", _MOVIELENS),
        "kuairand": Plugin("playbill.sources.kuairand.source:KuaiRandPure", _KUAIRAND),
        "kuairand_1k": Plugin("playbill.sources.kuairand.source:KuaiRand1K", _KUAIRAND),
        "kuairand_27k": Plugin("playbill.sources.kuairand.source:KuaiRand27K", _KUAIRAND),
        "parquet": Plugin("playbill.sources.tabular.source:OwnFiles", "playbill.sources.registry:ParquetOptions"),
        "sql": Plugin("playbill.sources.tabular.source:OwnDatabase", "playbill.sources.registry:SqlOptions"),
    },
)
"""Every source by name. An implementation is built with its options and has the methods of `Source`."""


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
