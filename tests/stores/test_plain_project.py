"""The stores in a Feast project that has never heard of Playbill, as their README shows it."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import pytest

import playbill_feast

README = Path(playbill_feast.__file__).with_name("README.md").read_text()


def block(language: str) -> str:
    (found,) = re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)
    return str(found)


def test_playbill_cannot_be_imported() -> None:
    with pytest.raises(ModuleNotFoundError):
        import playbill  # noqa: F401
    assert not {name for name in sys.modules if name.partition(".")[0] in ("playbill", "playbill_lab")}


def test_the_readmes_project_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "feature_store.yaml").write_text(block("yaml"))
    names: dict[str, Any] = {}
    exec(compile(block("python"), "README.md", "exec"), names)
    assert names["history"].get_column("mood").to_list() == [0.25, None]
    assert names["now"] == {"member_id": ["m1", "m2"], "mood": [0.75, None]}
    assert (tmp_path / "online.db").is_file()


def test_every_module_imports_without_playbill() -> None:
    root = Path(playbill_feast.__file__).parent
    for path in sorted(root.rglob("*.py")):
        # Ray takes seconds to import, and has tests of its own.
        if path.stem not in ("__init__", "ray_asof"):
            __import__(".".join(("playbill_feast", *path.relative_to(root).with_suffix("").parts)))
    assert not {name for name in sys.modules if name.partition(".")[0] in ("playbill", "playbill_lab")}


def test_a_missing_file_is_named_and_no_command_of_playbill(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "feature_store.yaml").write_text(block("yaml"))
    names: dict[str, Any] = {}
    before, after = block("python").split("store.materialize", 1)
    exec(compile(before, "README.md", "exec"), names)
    (tmp_path / "mood.parquet").unlink()
    with pytest.raises(playbill_feast.errors.StoreStateError, match=r"mood.parquet does not exist. Write that file.$"):
        exec(compile(f"store.materialize{after}", "README.md", "exec"), names)
