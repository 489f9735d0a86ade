from datetime import UTC, datetime

import pytest

from playbill.clock import FixedClock, parse_clock
from playbill.config import Project, expand_variables
from playbill.errors import ConfigError


def write(folder, text):
    (folder / "playbill.toml").write_text(text)
    return folder


def test_defaults_apply_without_a_file(tmp_path):
    workspace = Project.find(tmp_path).workspace()
    assert workspace.name == "ml_100k"
    assert workspace.folder == tmp_path / ".playbill" / "ml_100k"
    assert workspace.database_url == f"sqlite:///{tmp_path}/.playbill/ml_100k/playbill.db"
    assert workspace.registered_name("everycanvas") == "ml_100k.everycanvas"


def test_the_file_is_found_from_a_folder_below(tmp_path):
    write(tmp_path, 'workspace = "other"\n')
    below = tmp_path / "a" / "b"
    below.mkdir(parents=True)
    assert Project.find(below).root == tmp_path
    assert Project.find(below).workspace().name == "other"


def test_every_mistake_is_reported_with_the_nearest_key(tmp_path):
    write(tmp_path, 'workspce = "x"\n[services]\nmlflw = "y"\n[training]\nworkers = -1\n')
    with pytest.raises(ConfigError) as caught:
        Project.find(tmp_path)
    text = str(caught.value)
    assert "workspce: unknown key. Did you mean 'workspace'?" in text
    assert "services.mlflw: unknown key. Did you mean 'mlflow'?" in text
    assert "training.workers" in text


def test_malformed_toml_names_the_file(tmp_path):
    write(tmp_path, "workspace = \n")
    with pytest.raises(ConfigError, match=r"playbill\.toml"):
        Project.find(tmp_path)


def test_workspaces_lie_side_by_side(tmp_path):
    project = Project.find(write(tmp_path, '[workspaces.a]\nclock = "wall"\n[workspaces.b]\n'))
    assert project.workspace_names() == ("a", "b")
    a, b = project.workspace("a"), project.workspace("b")
    assert a.clock_setting == "wall"
    assert b.clock_setting == "data_end"
    assert a.folder != b.folder
    assert a.database_url != b.database_url
    assert a.mlflow_uri == b.mlflow_uri


@pytest.mark.parametrize("name", ["../up", "Upper", "", "1st", "with space"])
def test_a_workspace_name_cannot_leave_the_home_folder(tmp_path, name):
    if name == "":
        assert Project.find(tmp_path).workspace(name).name == "ml_100k"
        return
    with pytest.raises(ConfigError, match="workspace name"):
        Project.find(tmp_path).workspace(name)


def test_secrets_come_from_the_environment(tmp_path, monkeypatch):
    write(tmp_path, '[services]\ndatabase = "postgresql+psycopg://me:${PLAYBILL_TEST_PASSWORD}@db/playbill"\n')
    workspace = Project.find(tmp_path).workspace()
    with pytest.raises(ConfigError, match="PLAYBILL_TEST_PASSWORD"):
        _ = workspace.database_url
    monkeypatch.setenv("PLAYBILL_TEST_PASSWORD", "s3cret")
    assert workspace.database_url == "postgresql+psycopg://me:s3cret@db/playbill"


def test_expand_variables_leaves_other_text_alone():
    assert expand_variables("a $b {c}", {}) == "a $b {c}"


@pytest.mark.parametrize("text", ["yesterday", "1998-04-22T00:00:00"])
def test_a_clock_needs_a_moment_with_a_zone(tmp_path, text):
    write(tmp_path, f'[workspaces.a]\nclock = "{text}"\n')
    with pytest.raises(ConfigError, match=r"moment|zone"):
        Project.find(tmp_path)


def test_a_fixed_clock_answers_in_utc():
    setting = parse_clock("1998-04-22T02:00:00+02:00")
    assert isinstance(setting, datetime)
    assert FixedClock(setting).now() == datetime(1998, 4, 22, tzinfo=UTC)
    with pytest.raises(ConfigError, match="time zone"):
        FixedClock(datetime(1998, 4, 22))  # noqa: DTZ001
