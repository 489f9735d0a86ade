"""Class paths of the stores in earlier versions, as workspaces hold them: read by `apply`, which writes today's.

Until the stores became a package of their own, feature_store.yaml and, for every `SqlSource`, Feast's registry named
them by paths within Playbill. The first is rendered anew whenever a workspace is opened. The second is renamed here, in
place: Feast cannot read a source whose class it cannot import, and reads a view before it replaces it.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import sqlalchemy as sa
from feast.infra.registry import sql
from feast.protos.feast.core.DataSource_pb2 import DataSource
from feast.protos.feast.core.FeatureService_pb2 import FeatureService
from feast.protos.feast.core.FeatureView_pb2 import FeatureView
from feast.protos.feast.core.LabelView_pb2 import LabelView
from feast.protos.feast.core.OnDemandFeatureView_pb2 import OnDemandFeatureView
from feast.protos.feast.core.StreamFeatureView_pb2 import StreamFeatureView
from google.protobuf.message import Message  # type: ignore[import-untyped]

from playbill_feast.offline import sql_source

EARLIER_MODULE = "playbill.features.sql_source"
CLASS_PATHS = {f"{EARLIER_MODULE}.SqlSource": f"{sql_source.__name__}.SqlSource"}
"""Class of a data source: earlier path -> today's."""

_VIEWS: dict[str, Any] = {
    "feature_view": FeatureView,
    "stream_feature_view": StreamFeatureView,
    "on_demand_feature_view": OnDemandFeatureView,
    "label_view": LabelView,
}
_TABLES: tuple[tuple[sa.Table, str, Any], ...] = (
    (sql.data_sources, "data_source_proto", DataSource),
    (sql.feature_views, "feature_view_proto", FeatureView),
    (sql.stream_feature_views, "feature_view_proto", StreamFeatureView),
    (sql.on_demand_feature_views, "feature_view_proto", OnDemandFeatureView),
    (sql.label_views, "feature_view_proto", LabelView),
    (sql.feature_services, "feature_service_proto", FeatureService),
    (sql.feature_view_version_history, "feature_view_proto", None),
)
"""Tables of Feast's registry with sources in them, the column, and its message; None is by `feature_view_type`."""


@contextmanager
def earlier_modules() -> Iterator[None]:
    """Let a feature_repo that imports the stores by their earlier path be imported in this block."""
    already = EARLIER_MODULE in sys.modules
    sys.modules.setdefault(EARLIER_MODULE, sql_source)
    try:
        yield
    finally:
        if not already:
            del sys.modules[EARLIER_MODULE]


def rename_registered(url: str, project: str) -> int:
    """Rename earlier class paths in a project's rows of Feast's registry and return in how many.

    Raises:
        SQLAlchemyError: The registry does not answer. Nothing was changed.
    """
    engine = sa.create_engine(url)
    try:
        with engine.begin() as connection:
            known = set(sa.inspect(connection).get_table_names())
            return sum(_rename(connection, project, *table) for table in _TABLES if table[0].name in known)
    finally:
        engine.dispose()


def _rename(connection: sa.Connection, project: str, table: sa.Table, column: str, message: Any) -> int:
    changed = 0
    for row in connection.execute(sa.select(table).where(table.c.project_id == project)).mappings().all():
        if not any(path.encode() in row[column] for path in CLASS_PATHS):
            continue
        proto = (message or _VIEWS[row["feature_view_type"]]).FromString(row[column])
        _rename_in(proto)
        same = [key == row[key.name] for key in table.primary_key]
        connection.execute(sa.update(table).where(*same).values({column: proto.SerializeToString()}))
        changed += 1
    return changed


def _rename_in(message: Any) -> None:
    """Rename the classes of all sources inside a protobuf message."""
    if isinstance(message, DataSource):
        message.data_source_class_type = CLASS_PATHS.get(message.data_source_class_type, message.data_source_class_type)
    for field, value in message.ListFields():
        if field.message_type is None or field.message_type.GetOptions().map_entry:
            continue
        for part in [value] if isinstance(value, Message) else value:
            _rename_in(part)
