"""Outside data -> the canonical tables: MovieLens, KuaiRand, your files, your SQL database, and what arrives later."""

from playbill.sources.canonicalise import Progress, SourceData
from playbill.sources.ingest import IngestReport, ingest
from playbill.sources.push import PushReport, push_events, push_files, push_rows
from playbill.sources.pushed_rows import Offered
from playbill.sources.registry import SOURCES, Source

__all__ = [
    "SOURCES",
    "IngestReport",
    "Offered",
    "Progress",
    "PushReport",
    "Source",
    "SourceData",
    "ingest",
    "push_events",
    "push_files",
    "push_rows",
]
