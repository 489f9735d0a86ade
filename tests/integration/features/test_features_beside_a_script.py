"""A script may have neighbours that are called like files of feature_repo/."""

import sys
from types import SimpleNamespace

import pytest

from playbill.config import ProjectFolder, ProjectSettings
from playbill.errors import DefinitionError
from playbill.features import FeatureDoor

ENTITY = "from feast import Entity, ValueType\n\n{0} = Entity(name='{0}', value_type=ValueType.STRING)\n"


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A project with feature_repo/labels.py, and a folder with another labels.py that Python looks into first."""
    for name, entity in (("feature_repo", "right"), ("scripts", "wrong")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "labels.py").write_text(ENTITY.format(entity))
    monkeypatch.syspath_prepend(str(tmp_path / "scripts"))
    return ProjectFolder(tmp_path, ProjectSettings())


def test_what_lies_beside_the_running_script_is_not_taken_for_feature_repo(project, monkeypatch):
    script = project.root / "scripts" / "study.py"
    monkeypatch.setitem(sys.modules, "__main__", SimpleNamespace(__file__=str(script)))
    applied = FeatureDoor(project.workspace("own")).apply()
    assert "right" in str(applied)
    assert "wrong" not in str(applied)


def test_what_else_is_on_the_path_would_hide_it_from_feast(project):
    with pytest.raises(DefinitionError, match=r"labels\.py: a module of this name is installed"):
        FeatureDoor(project.workspace("own")).apply()
