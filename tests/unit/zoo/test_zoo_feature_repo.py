"""Names in feature_repo/, read without importing Feast."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from playbill.definitions.zoo.feature_definitions import read_feature_repo
from playbill.definitions.zoo.feature_repo import scan_feature_repo
from playbill.errors import Problem

Mistakes = Callable[..., list[str]]

SERVICES = """\
import feast
from feast import FeatureService, FeatureView
from feast.on_demand_feature_view import on_demand_feature_view

NAME = "every_v1"
profile = FeatureView(name="profile", entities=[])
every = FeatureService(name=NAME, features=[profile])
other = feast.FeatureService("other_v2", features=[profile])

@on_demand_feature_view(sources=[profile], schema=[])
def hour_of_week(inputs):
    return inputs
"""


@pytest.fixture
def repo(tmp_path: Path) -> Path:
    folder = tmp_path / "feature_repo"
    folder.mkdir()
    (folder / "services.py").write_text(SERVICES)
    return folder


def test_names_of_views_and_services_are_found(repo: Path) -> None:
    problems: list[Problem] = []
    names = scan_feature_repo(repo, problems)
    assert names.services == {"every_v1", "other_v2"}
    assert names.views == {"profile", "hour_of_week"}
    assert names.computed == ()
    assert problems == []


def test_scanning_feature_repo_imports_nothing(repo: Path) -> None:
    (repo / "services.py").write_text("raise SystemExit('imported')\n" + SERVICES)
    assert scan_feature_repo(repo, []).services == {"every_v1", "other_v2"}
    assert "services" not in sys.modules


def test_a_model_must_name_a_service_that_exists(repo: Path, mistakes: Mistakes) -> None:
    assert mistakes(repo) == []
    (repo / "services.py").write_text(SERVICES.replace("every_v1", "every_v2"))
    assert mistakes(repo) == [
        "model_zoo/models/every.yaml:4:11: features: unknown feature service 'every_v1'. Did you mean 'every_v2'?"
    ]


def test_a_computed_name_is_left_to_feast(repo: Path, mistakes: Mistakes) -> None:
    (repo / "services.py").write_text("services = [FeatureService(name=f'every_{n}') for n in range(3)]\n")
    assert scan_feature_repo(repo, []).computed == ("feature_repo/services.py:1",)
    assert mistakes(repo) == []


@pytest.mark.parametrize("name", ["types.py", "platform.py", "random.py", "pandas.py"])
def test_a_file_that_feast_would_skip_is_named(repo: Path, mistakes: Mistakes, name: str) -> None:
    (repo / name).write_text("")
    (found,) = mistakes(repo)
    assert f"feature_repo/{name}:1:1: a file called {name} is silently skipped by Feast" in found
    (repo / name).unlink()
    (repo / "more").mkdir()
    (repo / "more" / name).write_text("")
    assert mistakes(repo) == []


def test_a_file_that_does_not_parse_is_named(repo: Path, mistakes: Mistakes) -> None:
    (repo / "titles.py").write_text("profile = FeatureView(\n")
    assert any("feature_repo/titles.py:1:" in text and "Python syntax" in text for text in mistakes(repo))
    (repo / "titles.py").write_bytes(b"\xff\x00")
    assert any("feature_repo/titles.py:" in text for text in mistakes(repo))


def test_a_missing_feature_repo_is_a_mistake(tmp_path: Path, mistakes: Mistakes) -> None:
    assert "there is no such folder" in mistakes(tmp_path / "nowhere")[0]


OWN = """\
from services import every, profile
from playbill.features.own import Mean, event_function, event_view, extend

nights = event_view(name="nights", entity=None, values={"share": Mean("progress"), "count": Mean("progress")})

@event_function(entity=None, schema=[Field(name="gap")])
def rhythm(plays):
    return plays

mine = extend(every, "mine_v1", nights[["share"]], rhythm)
longer = extend(mine, "mine_v2", profile)
[1].extend([2])
"""


def test_views_of_ones_own_and_extended_services_are_found(repo: Path) -> None:
    (repo / "own.py").write_text(OWN)
    problems: list[Problem] = []
    names = scan_feature_repo(repo, problems)
    assert problems == []
    assert names.services == {"every_v1", "other_v2", "mine_v1", "mine_v2"}
    assert names.views == {"profile", "hour_of_week", "nights", "rhythm"}


def test_an_extended_service_reads_what_the_other_does(repo: Path) -> None:
    (repo / "own.py").write_text(OWN)
    found = read_feature_repo(repo)
    assert set(found.service_hashes("mine_v1")) == {"profile", "nights", "rhythm"}
    assert found.definitions["feature_view", "nights"].columns == ("share", "count")
    assert {name for (_, name), one in found.definitions.items() if one.computed} == {"nights", "rhythm"}
    longer = found.definitions["feature_service", "mine_v2"]
    assert [(reading.kind, reading.name) for reading in longer.reads] == [
        ("feature_service", "mine_v1"),
        ("feature_view", "profile"),
    ]


def test_a_service_reads_what_lists_have_that_are_spread_into_its_own(repo: Path) -> None:
    lists = "from services import profile\nFACTS = [profile[['age', 'kind']]]\nBOTH = [*FACTS, profile]\n"
    (repo / "lists.py").write_text(lists)
    own = "from lists import BOTH\nfrom feast import FeatureService\nall = FeatureService('all_v1', features=[*BOTH])\n"
    (repo / "own.py").write_text(own)
    found = read_feature_repo(repo)
    reads = found.definitions["feature_service", "all_v1"].reads
    assert [(one.name, one.columns) for one in reads] == [("profile", ("age", "kind")), ("profile", None)]
    assert set(found.service_hashes("all_v1")) == {"profile"}


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ('["share"]', '["shore"]', "own.py:10:33: view 'nights' has no column 'shore'. Did you mean 'share'?"),
        ("], rhythm)", "], rythm)", "own.py:10:52: 'rythm' is not defined. Did you mean 'rhythm'?"),
        ("every, profile", "evry, profile", "own.py:10:15: 'every' is not defined. Did you mean 'evry'?"),
    ],
)
def test_what_services_are_made_of_is_checked(repo: Path, old: str, new: str, expected: str) -> None:
    (repo / "own.py").write_text(OWN.replace(old, new))
    problems: list[Problem] = []
    scan_feature_repo(repo, problems)
    assert f"feature_repo/{expected}" in [str(problem) for problem in problems]
