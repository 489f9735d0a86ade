"""The study on KuaiRand, on small invented files of the publisher's shape."""

import json
from pathlib import Path

import numpy as np
import pytest
from scipy.special import log_softmax

from fixtures.kuairand_shaped import LIKED, OTHER, TAGS, write_kuairand
from playbill.config import ProjectFolder, ProjectSettings
from playbill.datasets import make_split
from playbill.definitions.zoo import load_zoo
from playbill.evaluation import CanvasScorer
from playbill.features import FeatureDoor
from playbill.metrics import auc
from playbill.ranking.scoring.bundle import read_bundle, write_bundle
from playbill.ranking.scoring.scorer import Scorer
from playbill.sources import ingest
from playbill.sources.kuairand import source as kuairand_events
from playbill.tables import Tables
from playbill.training.build import network_config

VIDEOS = 45
HEADS = ("next_long_view", "click", "hate")

# The scripts are found beside one another; afterwards they must not stand before feature_repo/'s own names.
with pytest.MonkeyPatch.context() as path:
    path.syspath_prepend(Path(__file__).parents[2] / "benchmarks")
    import kuairand as study
    from kuairand_heads import Exposures, MemberDraws, difference
    from kuairand_models import Service, train_model, with_heads
    from kuairand_random import RANDOM, STANDARD, AnyOfTop
    from kuairand_report import plot, show


@pytest.fixture(scope="module")
def workspace(tmp_path_factory):
    folder = tmp_path_factory.mktemp("kuairand")
    data = write_kuairand(folder / "data", videos=VIDEOS)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kuairand_events, "RANDOM_POOL", VIDEOS)
        return study.prepared(folder / "home", data, None)


@pytest.fixture(scope="module")
def result(workspace, tmp_path_factory):
    folder = tmp_path_factory.mktemp("study")
    options = {"heads": HEADS, "epochs": 1, "resamples": 100, "minimum_positives": 5, "top": 15, "floor": 5.0}
    found = study.study(workspace, folder / "kept", (1, 2), **options)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(study, "train_arms", None)
        again = study.study(workspace, folder / "kept", (1, 2), **options)
    assert again == found, "what was kept is another result than what was measured"
    return json.loads(json.dumps(found))


def test_scores_are_those_of_the_server_and_an_exposures_own_is_its_titles(workspace, tmp_path):
    resolved = with_heads(load_zoo(study.ROOT / "model_zoo").model("kuairand"), HEADS)
    tables = Tables(workspace)
    split = make_split("global_time", tables.interactions())
    service = Service(tables, resolved, split, FeatureDoor(workspace))
    model, shown = train_model(service, HEADS, 1, 1), Exposures.of(service)
    data, frames = service.data, service.frames
    config, weights = network_config(resolved, data.encoder), model.network.state_dict()
    write_bundle(tmp_path, resolved=resolved, encoder=data.encoder, config=config, weights=weights, plays=data.plays)
    at = {"as_of": data.watermark}
    server = Scorer(read_bundle(tmp_path), frames.titles_at(data.watermark), frames.availability, service.door, **at)
    served = CanvasScorer(server, resolved, study.MAIN_SURFACE, service.door).heads(shown.requests)
    scores, own = model.score(shown.requests), shown.logits(model)
    assert tuple(server.title_ids) == service.reader.title_ids
    columns = [service.reader.title_ids.index(title) for title in shown.frame["title_id"]]
    rows = np.arange(len(columns))
    for head in HEADS:
        assert np.allclose(scores[head], served[head], atol=1e-3), head
        expected = log_softmax(served[head], axis=1) if head == "next_long_view" else served[head]
        assert np.allclose(own[head], expected[rows, columns], atol=1e-3), head


def test_every_head_is_compared_on_every_surface_it_can_be(result):
    assert tuple(result["heads"]) == HEADS
    assert list(result["surfaces"]) == ["kuairand.tab_1", "kuairand.tab_0"]
    for rows in (result["heads"], *result["surfaces"].values()):
        row = rows["click"]
        low, high = row["interval"]
        assert low < row["multi_minus_single"] < high
        assert row["multi_minus_single"] == pytest.approx(row["auc_multi"] - row["auc_single"])
        assert len(row["auc_multi_by_seed"]) == 2
        assert row["positives"] < row["exposures"]
    exposures = [rows["click"]["exposures"] for rows in result["surfaces"].values()]
    assert sum(exposures) == result["heads"]["click"]["exposures"] == result["exposures"]["held_out"]
    assert {name: row["multi_minus_single"] for name, row in result["heads"].items()} == result["multi_minus_single"]


def test_costs_are_of_one_model_and_of_one_for_each_head(result):
    for what in ("train_seconds", "train_cpu_seconds", "parameters"):
        cost = result[what]
        assert tuple(cost["by_head"]) == HEADS
        assert cost["single"] == pytest.approx(sum(cost["by_head"].values()))
        assert cost["single_over_multi"] == pytest.approx(cost["single"] / cost["multi"])
    assert result["parameters"]["single_over_multi"] > 2


def test_lists_stand_beside_baselines(result):
    found = result["lists"]["kuairand.tab_1"]
    assert {"blend of multi", "blend of single", "next_long_view of multi", "popular", "popular_7d", "ease"} <= set(
        found
    )
    value = found["blend of multi"]["ndcg@10"][0] - found["blend of single"]["ndcg@10"][0]
    assert found["blend: multi minus single"]["ndcg@10"][0] == pytest.approx(value)
    assert result["lists"]["kuairand.tab_4"].keys() == {"skipped"}


def test_random_exposures_give_the_value_that_was_planted(result):
    played = result["off_policy"]["outcomes"]["played"]
    truth = (LIKED + (TAGS - 1) * OTHER) / TAGS
    low, high = played[RANDOM]["policies"]["popular"]["snips"]["interval"]
    # Everybody gets the same popular videos, and a third of the members like each.
    assert low < truth < high
    assert played[STANDARD]["mean"] > truth + 0.1
    assert played[STANDARD]["policies"]["popular"]["plain_mean"]["interval"][0] > truth


def test_the_study_prints_tables_and_draws_plots(result, tmp_path, capsys):
    from rich.console import Console

    show(Console(width=160), result | {"seconds": 1.0})
    printed = capsys.readouterr().out
    assert "AUC of heads, kuairand.tab_0" in printed
    assert "random exposures" in printed
    plot(result, tmp_path / "heads.svg")
    assert "<svg" in (tmp_path / "heads.svg").read_text()


def test_auc_of_draws_is_that_of_the_drawn_members_rows():
    rng = np.random.default_rng(0)
    members, scores = rng.integers(0, 9, 200), rng.integers(0, 12, 200) / 4.0
    members[:9] = np.arange(9)
    labels, rows = rng.integers(0, 2, 200).astype(float), rng.random(200) < 0.8
    draws = MemberDraws(members, 70)
    plain = [auc(scores[rows], labels[rows], counts[members[rows]]) for counts in draws.counts]
    assert draws.auc(scores, labels, rows) == pytest.approx(plain)
    assert np.isnan(draws.auc(scores, np.ones(200), rows)).all()


def test_seeds_that_disagree_widen_the_interval():
    drawn = np.random.default_rng(0).normal(0.02, 0.005, 500)
    alike = difference(np.array([0.72, 0.72, 0.72]), np.array([0.70, 0.70, 0.70]), drawn, 900)
    apart = difference(np.array([0.75, 0.72, 0.69]), np.array([0.70, 0.70, 0.70]), drawn, 900)
    assert alike["multi_minus_single"] == pytest.approx(apart["multi_minus_single"]) == pytest.approx(0.02)
    assert alike["p"] < 0.01 < 0.2 < apart["p"]
    assert np.diff(apart["interval"]) > 4 * np.diff(alike["interval"])


def test_any_of_top_spreads_over_the_best_that_may_be_shown():
    scores = np.array([[3.0, 1.0, 2.0, 9.0], [0.0, 0.0, 0.0, 0.0]])
    left = np.array([[True, True, True, False], [False, False, False, False]])
    assert AnyOfTop(2).distribution(scores, left).tolist() == [[0.5, 0.0, 0.5, 0.0], [0.0, 0.0, 0.0, 0.0]]


def test_only_some_members_are_kept(tmp_path):
    workspace = ProjectFolder(tmp_path, ProjectSettings()).workspace("kuairand")
    ingest(workspace, "kuairand", {"path": write_kuairand(tmp_path / "data", members=12)})
    tables = Tables(workspace)
    study.keep_members(tables, 5)
    assert tables.interactions()["member_id"].n_unique() == tables.members().height == 5
