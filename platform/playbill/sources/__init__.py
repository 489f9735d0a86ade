"""Outside data -> the canonical tables: MovieLens, your parquet and text files, your SQL database."""

from playbill.sources.ingest import IngestReport, ingest
from playbill.sources.offer import Offer, Progress
from playbill.sources.registry import SOURCES
from playbill.sources.source import Source

__all__ = ["SOURCES", "IngestReport", "Offer", "Progress", "Source", "ingest"]
