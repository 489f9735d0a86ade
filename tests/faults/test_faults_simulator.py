"""Simulated worlds that cannot be, catalogues without titles, policies that say what is not so: nothing is written."""

import sys
import types

import numpy as np
import polars as pl
import pytest
from click.testing import CliRunner

from fixtures.small_project import Shell
from playbill.cli.main import main
from playbill.config import ProjectFolder
from playbill.errors import StateError
from playbill.tables import Tables
from playbill_lab.simulator import Slates
from playbill_lab.simulator.policies.policies import EqualChance
from playbill_lab.simulator.world.checkpoint import FILE, read_world

SMALL = ("simulate", "--members", 40, "--days", 7, "--titles", 40)


class TooSure(EqualChance):
    """Propensities above 1."""

    def answer(self, request, rng):
        slates = super().answer(request, rng)
        return Slates(slates.titles, slates.propensity + 1)


class Silent(EqualChance):
    """No propensities at all."""

    def answer(self, request, rng):
        return Slates(super().answer(request, rng).titles, None)


class Forgetful(EqualChance):
    """Propensities are missing, and titles are no candidates."""

    def answer(self, request, rng):
        stranger = request.candidates().argmin(axis=1).astype(np.int32)
        titles = np.full((len(request), request.places), -1, np.int32)
        titles[:, 0] = stranger
        return Slates(titles, np.full(titles.shape, np.nan, np.float32))


class Bare:
    """No policy."""


@pytest.fixture
def shell(tmp_path):
    (tmp_path / "playbill.toml").write_text('workspace = "small"\n[workspaces.small]\nclock = "data_end"\n')
    return Shell(tmp_path)


def refused(shell, *arguments, match):
    """Expect one message and an untouched workspace."""
    before = shell.tree() if shell.home.exists() else {}
    shell.refused(*arguments, match=match)
    after = shell.tree() if shell.home.exists() else {}
    assert {name: size for name, size in after.items() if not name.endswith(".lock")} == {
        name: size for name, size in before.items() if not name.endswith(".lock")
    }


def test_a_world_without_titles_is_refused(shell, tmp_path):
    refused(shell, "simulate", "--titles", 0, match=r"titles: Input should be greater than 0")
    empty = pl.DataFrame(schema={"title_id": pl.String, "name": pl.String, "kind": pl.String})
    empty.write_parquet(tmp_path / "empty.parquet")
    refused(shell, *SMALL, "--catalogue", tmp_path / "empty.parquet", match=r"a service needs at least one title")


def test_a_launch_after_its_end_is_reported_with_all_other_mistakes(shell, tmp_path):
    path = tmp_path / "world.yaml"
    path.write_text(
        "members: 0\n"
        "dais: 3\n"
        "policy: plackett_luse\n"
        "countries:\n"
        "  - {code: US, languages: [en]}\n"
        "  - {code: US, languages: [en], launch_day: 40}\n"
        "  - {code: IN, languages: [hi], launch_dai: 3}\n"
    )
    result = shell.type("simulate", "--world", path)
    texts = result.stderr.partition("error: ")[2]
    assert texts.startswith("the simulated world: 6 problems")
    lines = (
        f"{path}:1:1: members: Input should be greater than 0.",
        f"{path}:2:1: dais: unknown key. Did you mean 'days'?",
        f"{path}:3:1: policy: unknown policy 'plackett_luse'. Did you mean 'plackett_luce'?",
        f"{path}:6:6: countries.1.code: 'US' is listed twice.",
        f"{path}:6:33: countries.1.launch_day: 'US' opens on day 40, but the run ends after day 27. At most 27.",
        f"{path}:7:33: countries.2.launch_dai: unknown key. Did you mean 'launch_day'?",
    )
    assert [line.strip() for line in texts.strip().split("\n")[1:]] == list(lines)
    assert not shell.home.exists()


def test_unknown_countries_and_missing_files_are_named(shell, tmp_path):
    refused(shell, "simulate", "--countries", "US,XX,YY", match=r"2 problems\n.*--countries XX.*\n.*--countries YY")
    refused(shell, "simulate", "--countries", "IN,PL", match=r"no country is open on the first day")
    refused(shell, "simulate", "--world", tmp_path / "no.yaml", match=r"world file .*no.yaml does not exist")
    refused(
        shell, *SMALL, "--catalogue", "smal", match=r"smal: there is no such file.* Did you mean the workspace 'small'"
    )


@pytest.mark.parametrize(
    ("policy", "match"),
    [
        ("plackett_luse", r"unknown policy 'plackett_luse'. Did you mean 'plackett_luce'"),
        ("no_such_module:Policy", r"policy 'no_such_module:Policy' cannot be imported"),
        ("playbill_lab.simulator.policies.policies:EqualChanc", r"has no 'EqualChanc'\. Did you mean 'EqualChance'"),
        ("not a module:Policy", r"'not a module:Policy' is no policy"),
        (f"{__name__}:Bare", r"3 problems\n  name: Bare does not say.*\n  answer: Bare has no such.*\n  probabilities"),
        (f"{__name__}:TooSure", r"policy 'uniform' answered what cannot be shown: a propensity outside \(0, 1\] in "),
        (f"{__name__}:Silent", r"no array of propensities: None"),
        (f"{__name__}:Forgetful", r"titles that are no candidates in .*; a missing propensity in "),
    ],
)
def test_unknown_policies_and_policies_with_wrong_answers_are_refused(shell, policy, match, monkeypatch):
    monkeypatch.setitem(sys.modules, __name__, _own())
    refused(shell, *SMALL, "--policy", policy, match=match)


def _own():
    """Return this module as policies find it by name."""
    module = types.ModuleType(__name__)
    module.__dict__.update(Bare=Bare, TooSure=TooSure, Silent=Silent, Forgetful=Forgetful)
    return module


def test_a_run_that_fails_leaves_the_log_and_its_world(shell, monkeypatch):
    monkeypatch.setitem(sys.modules, __name__, _own())
    shell.json(*SMALL)
    before, world = Tables(shell.workspace).snapshot_id(), (shell.home / FILE).read_text()
    refused(shell, *SMALL, "--seed", 9, "--policy", f"{__name__}:TooSure", match="propensity outside")
    assert Tables(shell.workspace).snapshot_id() == before
    assert (shell.home / FILE).read_text() == world


def test_a_publication_that_fails_brings_the_world_back(shell, monkeypatch):
    shell.json(*SMALL)
    before, world = Tables(shell.workspace).snapshot_id(), (shell.home / FILE).read_text()

    def full(*_args, **_more):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("playbill.tables.writer.TableWriter.finish", full)
        assert shell.type(*SMALL, "--seed", 9).exit_code == 1
    assert Tables(shell.workspace).snapshot_id() == before
    assert (shell.home / FILE).read_text() == world
    assert read_world(shell.home).spec.seed == 7


def test_a_kill_while_tables_are_published_costs_the_world_and_nothing_else(shell, monkeypatch):
    shell.json(*SMALL)
    before = Tables(shell.workspace).snapshot_id()
    with monkeypatch.context() as patched:
        patched.setattr("playbill_lab.simulator.world.checkpoint.WorldCheckpoint.__exit__", lambda *_args: None)
        patched.setattr("playbill.tables.writer.TableWriter.finish", lambda *_args: 1 / 0)
        assert shell.type(*SMALL, "--seed", 9).exit_code == 1
    assert Tables(shell.workspace).snapshot_id() == before
    with pytest.raises(StateError, match="no simulated world; run"):
        read_world(shell.home)
    shell.json(*SMALL, "--seed", 9)
    assert read_world(shell.home).spec.seed == 9


def test_a_log_that_was_not_simulated_is_not_lost(shell):
    shell.json(*SMALL)
    (shell.home / FILE).unlink()
    refused(shell, *SMALL, match=r"holds a log that was not simulated; choose another one with -w, or give --replace")
    assert shell.json(*SMALL, "--replace")["events"] > 100


def test_the_same_command_writes_the_same_bytes_and_another_workspace_lends_its_titles(shell):
    first = shell.json(*SMALL)
    before = Tables(shell.workspace).snapshot_id()
    again = shell.json(*SMALL, "--plot", shell.folder / "fit.svg")
    assert "MovieLens-1M, Gini 0.634" in (shell.folder / "fit.svg").read_text()
    assert {"events", "seconds", "peak_gib", "gini", "gini_movielens", "activity", "popularity"} <= set(first)
    assert set(first["activity"]) == {"simulated", "movielens"}
    assert Tables(shell.workspace).snapshot_id() == before
    timed = {"seconds", "cpu_seconds", "peak_gib"}
    assert {name: value for name, value in first.items() if name not in timed} == {
        name: value for name, value in again.items() if name not in timed
    }
    other = ProjectFolder.find(shell.folder).workspace("other")
    lent = CliRunner().invoke(
        main,
        [
            "--project",
            str(shell.folder),
            "-w",
            "other",
            *map(str, SMALL[:-2]),
            "--catalogue",
            "small",
            "--keep-availability",
        ],
    )
    assert lent.exit_code == 0, lent.output
    assert Tables(other).titles()["name"].sort().equals(Tables(shell.workspace).titles()["name"].sort())
    assert read_world(other.folder).catalogue.availability is not None
