"""The suite that an offline store inherits."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import pyarrow as pa
import pytest
from feast.data_source import DataSource

from playbill_feast.conformance.folders import in_folder
from playbill_feast.conformance.offline_pulls import PullTests
from playbill_feast.conformance.offline_repository import Warehouse, file_source, fill_file, open_warehouse
from playbill_feast.conformance.offline_rows import RowTests
from playbill_feast.conformance.offline_sums import SumTests
from playbill_feast.conformance.offline_times import TimeTests
from playbill_feast.conformance.offline_values import ValueTests


class OfflineStoreConformance(RowTests, TimeTests, ValueTests, PullTests, SumTests):
    """What any Feast offline store owes its users, as tests.

    Subclass it in a test module, name the subclass `Test...`, set `offline_store`. A store whose sources are
    not parquet files also overrides `make_source` and `write_source`.
    """

    offline_store: ClassVar[Mapping[str, Any]]
    """The `offline_store:` section of feature_store.yaml; `{folder}` in a text is the suite's own folder."""

    @classmethod
    def make_source(cls, name: str, folder: Path, **options: Any) -> DataSource:
        """Return the source of one view, once per class.

        Args:
            name: The view's name.
            folder: A folder that only this class uses.
            options: `timestamp_field`, `created_timestamp_column` (may be empty) and `field_mapping`, as every
                Feast source takes them.
        """
        return file_source(name, folder, **options)

    @classmethod
    def write_source(cls, source: DataSource, rows: pa.Table) -> None:
        """Make `rows` everything that the source holds, in that order; called at least once per test."""
        fill_file(source, rows)

    @pytest.fixture(scope="class")
    @classmethod
    def warehouse(cls, tmp_path_factory: pytest.TempPathFactory) -> Warehouse:
        """A registered repository on the store under test, for all tests of the class."""
        folder = tmp_path_factory.mktemp("offline_conformance")
        return open_warehouse(folder, in_folder(cls.offline_store, folder), cls.make_source, cls.write_source)
