"""Running a lazy scan, with the damaged file named when it fails on the way."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import polars as pl
import pyarrow as pa
from feast.data_source import DataSource
from feast.repo_config import RepoConfig

from playbill.errors import DataError, Problem
from playbill_feast.offline.parquet_files import damaged, first_line
from playbill_feast.offline.sources import advice, source_files


@contextmanager
def reading(config: RepoConfig, source: DataSource, view: str) -> Iterator[None]:
    """Turn a failure to read a source into one that names its files.

    A file whose footer is whole opens, and shows only when its pages are read that they are damaged.

    Raises:
        DataError: In place of the reader's own error; every damaged file is named.
    """
    try:
        yield
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException, pa.ArrowException, OSError) as error:
        hint = advice(config)
        problems = damaged(source_files(config, source))
        found = [Problem(problem.where, problem.what, hint) for problem in problems]
        where = getattr(source, "path", "") or source.name
        whole = [Problem(where, f"cannot be read: {first_line(error)}.", hint)]
        raise DataError(f"feature view '{view}'", found or whole) from error
