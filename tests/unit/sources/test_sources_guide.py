"""The mappings printed in the guide are well formed."""

import re
from pathlib import Path

from playbill.sources.mapping import FileTable, QueryTable
from playbill.sources.mapping_file import read_mapping

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
