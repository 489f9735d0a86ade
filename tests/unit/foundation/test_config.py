from datetime import UTC, datetime

import pytest

from playbill.clock import FixedClock, parse_clock
from playbill.config import ProjectFolder, expand_variables
from playbill.errors import ConfigError


def write(folder, text):
    (folder / "playbill.toml").write_text(text)
    return folder


def test_defaults_apply_without_a_file(tmp_path):
    workspace = ProjectFolder.find(tmp_path).workspace()
    assert workspace.name == "ml_100k"
    assert workspace.folder == tmp_path / ".playbill" / "ml_100k"
    assert workspace.database_url == f"sqlite:///{tmp_path}/.playbill/ml_100k/playbill.db"
    assert workspace.registered_name("everycanvas") == "ml_100k.everycanvas"


def test_the_file_is_found_from_a_folder_below(tmp_path):
    write(tmp_path, 'workspace = "other"\n')
    below = tmp_path / "a" / "b"
    below.mkdir(parents=True)
    assert ProjectFolder.find(below).root == tmp_path
    assert ProjectFolder.find(below).workspace().name == "other"


def test_every_mistake_is_reported_with_the_nearest_key(tmp_path):
    write(tmp_path, 'workspce = "x"\n[services]\nmlflw = "y"\n[training]\nworkers = -1\n')
    with pytest.raises(ConfigError) as caught:
        ProjectFolder.find(tmp_path)
    text = str(caught.value)
    assert "workspce: unknown key. Did you mean 'workspace'?" in text
    assert "services.mlflw: unknown key. Did you mean 'mlflow'?" in text
    assert "training.workers" in text


def test_malformed_toml_names_the_file(tmp_path):
    write(tmp_path, "workspace = \n")
    with pytest.raises(ConfigError, match=r"playbill\.toml"):
        ProjectFolder.find(tmp_path)


def test_workspaces_lie_side_by_side(tmp_path):
    project = ProjectFolder.find(write(tmp_path, '[workspaces.a]\nclock = "wall"\n[workspaces.b]\n'))
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
        assert ProjectFolder.find(tmp_path).workspace(name).name == "ml_100k"
        return
    with pytest.raises(ConfigError, match="workspace name"):
        ProjectFolder.find(tmp_path).workspace(name)


def test_secrets_come_from_the_environment(tmp_path, monkeypatch):
    write(tmp_path, '[services]\ndatabase = "postgresql+psycopg://me:${PLAYBILL_TEST_PASSWORD}@db/playbill"\n')
    workspace = ProjectFolder.find(tmp_path).workspace()
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
        ProjectFolder.find(tmp_path)


def test_a_fixed_clock_answers_in_utc():
    setting = parse_clock("1998-04-22T02:00:00+02:00")
    assert isinstance(setting, datetime)
    assert FixedClock(setting).now() == datetime(1998, 4, 22, tzinfo=UTC)
    with pytest.raises(ConfigError, match="time zone"):
        FixedClock(datetime(1998, 4, 22))  # noqa: DTZ001


def test_the_online_store_is_a_file_of_the_project_or_redis(tmp_path, monkeypatch):
    default = ProjectFolder.find(tmp_path).workspace()
    assert default.online_store_path == tmp_path / ".playbill" / "ml_100k" / "online_store.db"
    for text in ("kept/{workspace}.db", "sqlite:///kept/{workspace}.db"):
        write(tmp_path, f'[services]\nonline_store = "{text}"\n')
        assert ProjectFolder.find(tmp_path).workspace().online_store_path == tmp_path / "kept" / "ml_100k.db"
    monkeypatch.setenv("PW", "hunter2")
    write(tmp_path, '[services]\nonline_store = "redis://:${PW}@cache:6390/2"\n')
    workspace = ProjectFolder.find(tmp_path).workspace()
    assert workspace.online_store_path is None
    assert workspace.online_store == "redis://cache:6390/2"


def test_another_online_store_is_refused_in_the_file_and_from_the_environment(tmp_path, monkeypatch):
    write(tmp_path, '[services]\nonline_store = "postgresql://db/x"\n')
    with pytest.raises(ConfigError, match=r"services.online_store.*redis://HOST:PORT/DATABASE, not postgresql://"):
        ProjectFolder.find(tmp_path)
    monkeypatch.setenv("ONLINE", "mysql://db/x")
    write(tmp_path, '[services]\nonline_store = "${ONLINE}"\n')
    with pytest.raises(ConfigError, match=r"services.online_store.*not mysql://"):
        _ = ProjectFolder.find(tmp_path).workspace().online_store_path


def test_settings_of_the_ray_engine_are_checked_with_the_rest(tmp_path):
    write(tmp_path, '[features]\nengine = "ray"\nray = {partition = 4}\n')
    with pytest.raises(ConfigError, match=r"features.ray.partition: unknown key. Did you mean 'partitions'"):
        ProjectFolder.find(tmp_path)
    write(tmp_path, '[features]\nengin = "ray"\n')
    with pytest.raises(ConfigError, match=r"features.engin: unknown key. Did you mean 'engine'"):
        ProjectFolder.find(tmp_path)
