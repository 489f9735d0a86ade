"""The guide: its mappings are well formed, and it lists every canonical column and every key of a mapping."""

import re
from pathlib import Path

import pytest

from playbill.schema import TABLES
from playbill.sources.tabular.mapping import (
    MAPPABLE,
    NEEDED_COLUMNS,
    ColumnMapping,
    FileTable,
    QueryTable,
    read_mapping,
)

GUIDE = Path(__file__).parents[3] / "docs" / "guide" / "ingest.md"


def test_mappings_in_the_guide(tmp_path):
    blocks = re.findall(r"```yaml\n(.*?)```", GUIDE.read_text(encoding="utf-8"), flags=re.DOTALL)
    assert len(blocks) == 2
    for block in blocks:
        path = tmp_path / "mapping.yaml"
        path.write_text(block, encoding="utf-8")
        kind = FileTable if "file:" in block else QueryTable
        tables, problems = read_mapping(path, kind)
        assert problems == []
        assert {"titles", "interactions"} <= set(tables)


def column_table(name: str) -> str:
    """Write a table's columns as the guide has them."""
    lines = [f"### `{name}`", "", "| column | type | | what it holds |", "|---|---|---|---|"]
    for column in TABLES[name].columns:
        left_out = "optional" if column.nullable else "derived"
        needed = "mapped" if column.name in NEEDED_COLUMNS[name] else left_out
        lines.append(f"| `{column.name}` | {column.type} | {needed} | {column.doc} |")
    return "\n".join(lines) + "\n"


@pytest.mark.parametrize("name", MAPPABLE)
def test_every_canonical_column_is_in_the_guide(name):
    assert all(column.doc for column in TABLES[name].columns)
    expected = column_table(name)
    assert expected in GUIDE.read_text(encoding="utf-8"), f"docs/guide/ingest.md should have:\n{expected}"


def test_every_key_of_a_mapping_is_in_the_guide():
    text = GUIDE.read_text(encoding="utf-8")
    for spec in (ColumnMapping, FileTable, QueryTable):
        missing = [key for name, field in spec.model_fields.items() if f"`{(key := field.alias or name)}`" not in text]
        assert missing == [], spec
