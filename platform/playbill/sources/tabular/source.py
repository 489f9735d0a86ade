"""The source `parquet`: a user's own files, through a mapping."""

from __future__ import annotations

from pathlib import Path

import polars as pl

from playbill.errors import DefinitionError, Problem
from playbill.sources.canonicalise import Offer, Progress
from playbill.sources.options import ParquetOptions
from playbill.sources.tabular.files import FileError, open_table, wrong_separator
from playbill.sources.tabular.mapped import mapped_offer
from playbill.sources.tabular.mapping import FileTable
from playbill.sources.tabular.mapping_file import read_mapping, unknown_columns


class OwnFiles:
    """Files in a folder: parquet, separated text, JSON.

    Args:
        options: The folder and the mapping.
    """

    terms = ""

    def __init__(self, options: ParquetOptions) -> None:
        self._folder, self._mapping = options.path, options.mapping

    def open(self, scratch: Path, progress: Progress) -> tuple[Offer, str]:
        """Check the mapping against the files and offer their rows. See `playbill.sources.source.Source`."""
        tables, problems = read_mapping(self._mapping, FileTable)
        opened: dict[str, pl.LazyFrame] = {}
        for name, table in tables.items():
            try:
                opened[name] = open_table(name, table, self._folder, scratch)
            except FileError as error:
                problems.append(error.problem)
                continue
            problems += self._column_problems(name, table, opened[name].collect_schema().names())
        if problems:
            raise DefinitionError(f"mapping {self._mapping}", problems)
        offer = mapped_offer(tables, opened, self._mapping, scratch)
        return offer, f"the files in {self._folder}"

    def _column_problems(self, name: str, table: FileTable, known: list[str]) -> list[Problem]:
        problems = unknown_columns(name, table, known)
        # Of columns with one name polars calls the second one so.
        problems += [
            Problem(
                f"{name}.{path}", f"the column '{source}' is there twice.", "Give the columns other names in the file."
            )
            for path, source in table.sources().items()
            if f"{source}_duplicated_0" in known
        ]
        if problems and (separator := wrong_separator(known)):
            what = f"'{table.file}' has a single column, '{known[0][:80]}'."
            return [Problem(f"{name}.file", what, f"Say how columns are separated, perhaps separator: {separator!r}.")]
        return problems
