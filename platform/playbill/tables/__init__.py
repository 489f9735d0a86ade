"""Reading and writing the canonical tables, vocabularies, the event journal and the request log."""

from playbill.tables.appending import Added
from playbill.tables.database import database_errors, insert_new, missing_driver, open_database
from playbill.tables.frames import TIMESTAMP, canonical_frame, empty_frame, polars_schema
from playbill.tables.journal import AppendResult, Journal
from playbill.tables.request_log import RequestLog
from playbill.tables.store import Tables, workspace_clock
from playbill.tables.validation import Places, RowMistake, example_row
from playbill.tables.vocabulary import Vocabulary
from playbill.tables.writer import TableWriter

__all__ = [
    "TIMESTAMP",
    "Added",
    "AppendResult",
    "Journal",
    "Places",
    "RequestLog",
    "RowMistake",
    "TableWriter",
    "Tables",
    "Vocabulary",
    "canonical_frame",
    "database_errors",
    "empty_frame",
    "example_row",
    "insert_new",
    "missing_driver",
    "open_database",
    "polars_schema",
    "workspace_clock",
]
