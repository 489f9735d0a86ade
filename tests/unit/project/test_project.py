"""`playbill.Project`: opening, choosing a workspace, and what it costs to import it."""

from __future__ import annotations

import re
import subprocess
import sys
import typing
from datetime import datetime
from importlib import import_module
from pathlib import Path

import polars as pl
import pytest

import playbill
from playbill import Project
from playbill.config import Workspace
from playbill.errors import ConfigError, RequestError, UnknownNameError
from playbill.project.arguments import Situation
from playbill.serving.messages import NotFoundError, RecommendRequest
from playbill.tables import RequestLog

IMPORT = re.compile(r"from (\S+) import (.+)")


@pytest.fixture
def own(tmp_path: Path) -> Workspace:
    from fixtures.serving_world import make_workspace

    return make_workspace(tmp_path)


def test_every_public_name_is_there_and_a_type_checker_sees_the_same() -> None:
    stated = Path(playbill.__file__).read_text().partition("if TYPE_CHECKING:")[2].partition("__version__")[0]
    seen = {name: module for module, names in IMPORT.findall(stated) for name in names.split(", ")}
    assert set(playbill.__all__) == {*seen, "__version__"} <= set(dir(playbill))
    for name, module in seen.items():
        assert getattr(playbill, name) is getattr(import_module(module), name), name


def test_a_name_that_is_not_public_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Projekt'"):
        _ = playbill.Projekt


def test_importing_the_face_imports_nothing_heavy() -> None:
    code = (
        "import sys, playbill\n"
        "before = [name for name in sys.modules if name.startswith('playbill.')]\n"
        "from playbill import Project\n"
        "Project.open(sys.argv[1])\n"
        "heavy = {'torch', 'feast', 'mlflow', 'ray', 'pandas', 'polars'} & set(sys.modules)\n"
        "sys.exit(f'imported {before} {heavy}' if before or heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code, "."], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_project_is_found_from_below_and_another_workspace_is_chosen(tmp_path: Path) -> None:
    (tmp_path / "playbill.toml").write_text('workspace = "shop"\n[workspaces.shop]\n[workspaces.other]\n')
    below = tmp_path / "a" / "b"
    below.mkdir(parents=True)
    project = Project.open(str(below))
    assert (project.workspace.project.root, project.workspace.name) == (tmp_path.resolve(), "shop")
    assert project.workspaces() == ("other", "shop")
    assert project.select("other").workspace.name == "other"
    assert project.select("other") == Project.open(below, workspace="other")


def test_mistakes_of_opening_name_the_place(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="does not exist"):
        Project.open(tmp_path / "absent")
    with pytest.raises(ConfigError, match="'No Name' is no workspace name"):
        Project.open(tmp_path, workspace="No Name")


def test_a_rehearsal_reports_frames_and_writes_nothing(tmp_path: Path, small_data: Path) -> None:
    heard: list[str] = []

    class Listener:
        def stage(self, name: str) -> None:
            heard.append(name)

        def advance(self, done: int, total: int | None, detail: str = "") -> None: ...

    project = Project.open(tmp_path, workspace="shop")
    mapping = small_data / "mapping.yaml"
    report = project.ingest("parquet", small_data, mapping=mapping, dry_run=True, progress=Listener())
    assert report.rows["titles"] == 120
    assert isinstance(report.samples["titles"], pl.DataFrame)
    assert heard[-1] == "check and write"
    assert len(heard) == len(set(heard)), "a stage is announced once"
    assert not project.workspace.tables.exists()
    with pytest.raises(ConfigError, match="did you mean 'mapping'"):
        project.ingest("parquet", small_data, maping=mapping)


def test_a_situation_has_the_fields_of_a_request() -> None:
    renamed = {"source_title": "source_title_id"}
    fields = {renamed.get(name, name) for name in typing.get_type_hints(Situation)}
    assert fields == set(RecommendRequest.model_fields) - {"canvas", "member_id", "timeout_ms"}


def test_answers_are_typed_frames_and_logged(own: Workspace) -> None:
    project = Project(own)
    answer = project.recommend("42", "home", k=3, rows=False)
    assert (answer.policy, answer.reason) == ("popular_7d", "no approved model")
    frame = answer.to_polars()
    assert frame.columns == ["row_id", "row", "position", "title_id", "name", "score"]
    assert frame.get_column("title_id").to_list() == ["t3", "t5", "t2"]
    assert frame.get_column("row_id").null_count() == 3
    page = project.page("42", k=2)
    assert page.rows is not None
    assert page.to_polars().get_column("row_id").unique(maintain_order=True).to_list() == [
        row.row_id for row in page.rows
    ]
    logged = RequestLog(own.database_url).requests()
    assert logged.height == 2


def test_an_explanation_names_the_title_and_is_not_logged(own: Workspace) -> None:
    project = Project(own)
    found = project.explain("Dune", "42", "home")
    assert found.name == "Dune"
    assert found.places[0].name == "home"
    assert RequestLog(own.database_url).requests().is_empty()


def test_mistakes_of_a_request_are_one_message(own: Workspace) -> None:
    project = Project(own)
    with pytest.raises(UnknownNameError, match="Did you mean 'search'"):
        project.recommend("42", "serch")
    with pytest.raises(RequestError, match="'search'"):
        project.page("42", "search", query="du")
    with pytest.raises(RequestError, match="countri: Extra inputs are not permitted"):
        project.recommend("42", "home", countri="NL")  # type: ignore[call-arg]
    with pytest.raises(ConfigError, match="has no time zone"):
        project.recommend("42", "home", at="1998-04-22")
    with pytest.raises(RequestError, match="at: "):
        project.recommend("42", "home", at=datetime(1998, 4, 22))  # noqa: DTZ001


def test_a_title_that_is_pushed_is_known_to_the_next_request(own: Workspace) -> None:
    """The tables are looked at before each answer, so that nothing has to be opened again."""
    project = Project(own)
    with pytest.raises(NotFoundError, match="unknown title 'Dawn'"):
        project.explain("Dawn", "42", "home")
    file = own.folder / "new.ndjson"
    file.write_text('{"title_id": "t99", "name": "Dawn", "kind": "film"}\n')
    assert project.push(titles=file).rows["titles"] == 1
    assert project.explain("Dawn", "42", "home").title_id == "t99"


class Heard:
    """Hears of progress."""

    def __init__(self) -> None:
        self.stages: list[str] = []

    def stage(self, name: str) -> None:
        self.stages.append(name)

    def advance(self, done: int, total: int | None, detail: str = "") -> None: ...


def test_the_first_request_says_what_it_loads_and_so_does_one_after_a_push(
    own: Workspace, caplog: pytest.LogCaptureFixture
) -> None:
    project, heard = Project(own), Heard()
    project.recommend("42", "home", progress=heard)
    (loading,) = heard.stages
    assert loading.startswith("load everycanvas, without an approved version, and the catalogue of ")
    project.recommend("7", "home", progress=heard)
    project.page("42", progress=heard)
    assert heard.stages == [loading], "nothing is loaded again"
    file = own.folder / "new.ndjson"
    file.write_text('{"title_id": "t99", "name": "Dawn", "kind": "film"}\n')
    project.push(titles=file)
    with caplog.at_level("INFO", logger="playbill.serving"):
        project.explain("Dawn", "42", "home", progress=heard)
        assert len(heard.stages) == 2
        assert not caplog.messages
        Project(own).recommend("42", "home")
    assert caplog.messages == [loading]


def test_evaluating_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="name a version"):
        Project.open(tmp_path).evaluate()


REFERENCE = Path(__file__).parents[3] / "docs" / "reference" / "python.md"


def test_the_reference_lists_what_is_public_and_every_method() -> None:
    methods, _, names = REFERENCE.read_text().partition("## What is public")
    listed = [
        cell for line in re.findall(r"^\| (`.*?) \|", names, re.MULTILINE) for cell in re.findall(r"`(\w+)`", line)
    ]
    assert sorted(listed) == sorted(playbill.__all__)
    first = [line for line in re.findall(r"^\| (`.*?) \|", methods, re.MULTILINE)]
    named = {name.removeprefix("Project.") for line in first for name in re.findall(r"`([\w.]+)", line)}
    public = {name for name in dir(Project) if not name.startswith("_") and callable(getattr(Project, name))}
    assert named == public
