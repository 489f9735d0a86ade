"""A model that fails in one country: the country is found, with the reason, and small countries are left open."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from fixtures import evaluation_service as world
from playbill.continual.diagnosis.diagnose import DiagnoseOptions, diagnose_model
from playbill.continual.diagnosis.diagnosis import check_plot, diagnosis_grids, draw
from playbill.continual.diagnosis.slice_facts import distances, jensen_shannon
from playbill.datasets import make_split
from playbill.errors import ConfigError, StateError, UnknownNameError
from playbill.evaluation import CanvasScorer, OpenModel

TITLES = [str(number) for number in range(1, 41)]
COUNTRIES = {"US": 60, "DE": 60, "FR": 60, "NZ": 60, "IS": 3}


class ByNumber:
    """Ranks titles by their number, whoever asks."""

    title_ids = TITLES

    def remember(self, moments):
        pass

    def score(self, requests, heads=None):
        return {"play": np.tile(np.linspace(3, -3, len(TITLES), dtype=np.float32), (len(requests), 1))}


def plays() -> tuple[list[tuple[str, str, float]], dict[str, str]]:
    """Members of five countries; those of NZ like best what all others like least."""
    generator, rows, countries = np.random.default_rng(0), [], {}
    weights = 1.0 / np.arange(1, len(TITLES) + 1)
    for country, size in COUNTRIES.items():
        for number in range(size):
            member = f"{country}{number}"
            countries[member] = country
            order = weights[::-1] if country == "NZ" else weights
            chosen = generator.choice(len(TITLES), 5 + 4 * (number % 2), replace=False, p=order / order.sum())
            start = generator.random() * 40
            rows += [(member, TITLES[title], start + step) for step, title in enumerate(chosen)]
    return rows, countries


@pytest.fixture(scope="module")
def service():
    rows, countries = plays()
    tables = world.tables_of(rows, titles=TITLES, countries=countries)
    resolved = world.resolved_of()
    model = OpenModel(resolved, ByNumber(), make_split("leave_one_out", tables.interactions), "digest")
    return model, CanvasScorer(ByNumber(), resolved, "home", None), tables


def diagnosed(service, **options):
    model, function, tables = service
    return diagnose_model(model, function, tables, "tiny:1", DiagnoseOptions(draws=100, **options))


@pytest.fixture(scope="module")
def found(service):
    return diagnosed(service, minimum_members=20)


def test_the_country_that_plays_other_titles_is_found_with_its_reason(found):
    assert [one.slice for one in found.failing] == ["NZ"]
    worst = found.slices[0]
    assert worst.slice == "NZ"
    assert worst.gap.high < 0.0
    assert worst.facts["popularity_divergence"] > 0.2
    assert worst.distances["popularity_divergence"] > 2.0
    assert any("titles" in reason for reason in worst.reasons)
    assert "playbill adapt tiny --countries NZ" in worst.suggestion or "playbill ensemble" in worst.suggestion
    assert "tiny:1" not in worst.suggestion
    assert sum(one.requests for one in found.slices) == found.requests


def test_a_country_with_few_members_has_numbers_and_no_conclusion(found):
    last = found.slices[-1]
    assert (last.slice, last.verdict, last.adjusted_p) == ("IS", "not concluded", None)
    assert last.members == 3
    assert "too few" in last.suggestion


def test_what_the_log_does_not_know_is_no_number(found):
    assert found.slices[0].facts["language_match"] is None
    assert found.slices[0].facts["calibration"] is None
    assert "foreign_language" not in found.slices[0].parts


def test_it_can_be_read_as_json_as_a_frame_as_tables_and_as_a_picture(found, tmp_path):
    assert json.loads(json.dumps(found.to_dict(), allow_nan=False))["slices"][0]["gap"]["high"] < 0.0
    frame = found.to_polars()
    assert frame.height == len(COUNTRIES)
    assert frame.schema["drift"] == pl.Float64
    gaps, facts, reasons = diagnosis_grids(found)
    assert {len(row) for row in (*gaps.rows, *facts.rows, *reasons.rows)} == {
        len(gaps.columns),
        len(facts.columns),
        len(reasons.columns),
    }
    assert [row[0] for row in reasons.rows] == ["NZ"]
    assert draw(found, tmp_path / "gaps.svg").read_text().lstrip().startswith("<?xml")


def test_by_tenure_short_histories_are_no_gap_of_the_slice(service):
    found = diagnosed(service, by="tenure", minimum_members=20)
    assert {one.slice for one in found.slices} == {"1-7d", "7-30d"}
    assert all(one.facts["history"] is not None for one in found.slices)
    assert all("country" not in one.suggestion for one in found.slices)


def test_a_slice_that_the_log_does_not_know_names_those_that_it_does(service):
    with pytest.raises(StateError, match=r"does not say the device .*country.*--by"):
        diagnosed(service, by="device")


def test_one_slice_is_compared_with_nothing(service):
    with pytest.raises(StateError, match=r"every held-out request is of one canvas, 'home'.*--by"):
        diagnosed(service, by="canvas")


def test_names_are_looked_up_before_anything_is_read():
    from playbill.continual.diagnosis.diagnose import diagnose

    with pytest.raises(UnknownNameError, match="Did you mean 'country'"):
        diagnose(None, "tiny", DiagnoseOptions(by="contry"))
    with pytest.raises(UnknownNameError, match="protocol"):
        diagnose(None, "tiny", DiagnoseOptions(protocol="nothing"))
    with pytest.raises(ConfigError, match=r"neither an SVG nor a PNG.*gaps\.svg"):
        check_plot(Path("gaps.pdf"))


def test_small_samples_of_one_taste_are_not_taken_for_another():
    generator = np.random.default_rng(0)
    taste = np.arange(1.0, 201.0)
    drawn = generator.multinomial(50, taste / taste.sum()).astype(float)
    assert jensen_shannon(drawn, taste) > 0.2
    assert jensen_shannon(taste, 3 * taste) == pytest.approx(0.0, abs=1e-12)
    assert jensen_shannon(np.array([1.0, 0.0]), np.array([0.0, 1.0])) == pytest.approx(1.0)


def test_distances_are_in_the_harder_direction_and_need_two_others():
    facts = {"events": np.array([100.0, 1_000.0, 1_100.0, 900.0]), "drift": np.array([0.5, 0.1, 0.11, 0.09])}
    found = distances(facts, np.ones(4, dtype=bool))
    assert found["events"][0] > 3.0
    assert found["drift"][0] > 3.0
    assert np.isnan(distances(facts, np.array([True, True, False, False]))["drift"][0])
