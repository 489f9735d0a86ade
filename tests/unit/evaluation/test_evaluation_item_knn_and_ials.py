"""Item-kNN and iALS against plain loops, and against what a member would notice."""

from __future__ import annotations

import math

import numpy as np
import polars as pl
import pytest
from scipy import sparse

from fixtures import evaluation_service as world
from playbill.datasets import Request, make_split
from playbill.errors import ConfigError
from playbill.evaluation.baselines import ials as ials_module
from playbill.evaluation.baselines import item_knn as item_knn_module
from playbill.evaluation.baselines.ease import past_matrix, play_matrix
from playbill.evaluation.baselines.ials import Ials, IalsOptions, solve_rows, title_factors
from playbill.evaluation.baselines.item_knn import ItemKnn
from playbill.evaluation.baselines.popularity import build_baseline
from playbill.evaluation.cases.build import build_case
from playbill.evaluation.cases.event_log import TitleOrder
from playbill.models import item_knn as neighbours_module
from playbill.models.item_knn import similarities

ABC = TitleOrder(("a", "b", "c"))
PLAYS = pl.DataFrame(
    {"member_id": ["u", "u", "v", "v", "w", "v", "x"], "title_id": ["a", "b", "a", "c", "a", "a", "gone"]}
)  # v plays a twice; x plays nothing of the catalogue


def history(*titles: str, action: str = "play") -> pl.DataFrame:
    return pl.DataFrame({"title_id": list(titles), "action": [action] * len(titles)}, schema_overrides=TEXT)


TEXT = {"title_id": pl.String, "action": pl.String}


def random_plays(members: int, titles: int, seed: int = 0) -> sparse.csr_array:
    draw = np.random.default_rng(seed).random((members, titles)) < np.linspace(0.6, 0.05, titles)
    return sparse.csr_array(draw.astype(np.float32))


def plain_similarity(X, neighbours: int, shrinkage: float):
    """The definition, pair by pair."""
    titles = X.shape[1]
    S = np.zeros((titles, titles))
    for t in range(titles):
        alike = []
        for s in range(titles):
            both = sum(X[u, s] * X[u, t] for u in range(X.shape[0]))
            if s != t and both:
                alike.append((both / (math.sqrt(X[:, s].sum() * X[:, t].sum()) + shrinkage), -s))
        for value, place in sorted(alike, reverse=True)[:neighbours]:
            S[-place, t] = value
    return S


def plain_ials(X, members, options: IalsOptions):
    """The titles' vectors after each round, one system of equations at a time, every cell written out."""

    def solved(P, other):
        rows = np.zeros((P.shape[0], other.shape[1]))
        for r in range(P.shape[0]):
            if not P[r].any():
                continue
            weights = options.unplayed_weight + P[r]
            scale = (P[r].sum() + options.unplayed_weight * P.shape[1]) ** options.frequency_power
            left = (other * weights[:, None]).T @ other + options.regularisation * scale * np.eye(other.shape[1])
            rows[r] = np.linalg.solve(left, other.T @ P[r])
        return rows

    titles = solved(X.T, members)
    for _ in range(options.rounds - 1):
        titles = solved(X.T, solved(X, titles))
    return titles


def test_play_matrix_counts_once_and_leaves_strangers_out():
    np.testing.assert_array_equal(play_matrix(ABC, PLAYS).toarray(), [[1, 1, 0], [1, 0, 1], [1, 0, 0]])


def test_past_matrix_reads_plays_of_the_history_only():
    requests = [
        Request("home", None, history=history("b", "b", "unheard")),
        Request("home", None),
        Request("home", None, history=history("c", action="thumbs_down")),
        Request("home", None, history=history("c", "a")),
    ]
    np.testing.assert_array_equal(past_matrix(ABC, requests).toarray(), [[0, 1, 0], [0, 0, 0], [0, 0, 0], [1, 0, 1]])


@pytest.mark.parametrize(("neighbours", "shrinkage"), [(1, 0.0), (3, 2.5), (50, 10.0)])
def test_similarity_equals_the_plain_loop(monkeypatch, neighbours, shrinkage):
    X = random_plays(25, 9)
    monkeypatch.setattr(neighbours_module, "CELLS_AT_ONCE", 20)  # two titles a block
    found = similarities(X, neighbours, shrinkage).toarray()
    np.testing.assert_allclose(found, plain_similarity(X.toarray(), neighbours, shrinkage), rtol=1e-5)


def test_item_knn_adds_up_the_titles_played_and_backs_off_without_any():
    backoff = np.array([0.5, 0.25, 0.0])
    model = ItemKnn.fit(ABC, PLAYS, shrinkage=0.0, backoff=backoff)
    S = model.similarity.toarray()
    assert S[0, 1] == pytest.approx(1 / math.sqrt(3))
    scores = model.score([Request("home", None, history=history("a", "b")), Request("home", None)])
    np.testing.assert_allclose(scores, [S[0] + S[1], backoff])


@pytest.mark.parametrize("power", [0.0, 1.0])
def test_ials_equals_the_plain_reference(monkeypatch, power):
    options = IalsOptions(4, unplayed_weight=0.2, regularisation=0.05, frequency_power=power, rounds=3, seed=5)
    X = random_plays(30, 11)
    start = np.random.default_rng(5).normal(0.0, 0.1 / math.sqrt(4), (30, 4)).astype(np.float32)
    monkeypatch.setattr(ials_module, "NUMBERS_AT_ONCE", 100)  # a batch of one or two rows
    found = title_factors(X, options)
    np.testing.assert_allclose(found, plain_ials(X.toarray(), start, options), rtol=2e-3, atol=2e-4)


def test_every_solved_row_is_the_minimum_of_its_loss():
    """Nudging a row's vector in any direction must not lower Hu's loss with frequency-scaled regularisation."""
    options, generator = IalsOptions(3, unplayed_weight=0.3, regularisation=0.1), np.random.default_rng(1)
    X, V = random_plays(6, 8, seed=2), generator.normal(size=(8, 3)).astype(np.float32)
    W = solve_rows(X, V, options)

    def loss(w, x):
        scores = V @ w
        penalty = 0.1 * (x.sum() + 0.3 * 8)
        return (x * (scores - 1) ** 2).sum() + 0.3 * (scores**2).sum() + penalty * (w**2).sum()

    for w, x in zip(W, X.toarray(), strict=True):
        nudged = [loss(w + 0.05 * direction, x) for direction in generator.normal(size=(20, 3))]
        assert min(nudged) > loss(w, x)


def test_ials_folds_a_request_in_and_backs_off_without_a_past():
    backoff = np.array([0.5, 0.25, 0.0])
    options = IalsOptions(2, rounds=3)
    model = Ials.fit(ABC, PLAYS, options, backoff=backoff)
    scores = model.score([Request("home", None, history=history("b")), Request("home", None, history=history())])
    own = solve_rows(sparse.csr_array(np.array([[0, 1, 0]], dtype=np.float32)), model.titles, options)
    np.testing.assert_allclose(scores[0], (own @ model.titles.T)[0], rtol=1e-5)
    np.testing.assert_allclose(scores[1], backoff)


def test_ials_repeats_itself_by_seed():
    X = random_plays(20, 8)
    first, again, other = (title_factors(X, IalsOptions(4, rounds=2, seed=seed)) for seed in (3, 3, 4))
    np.testing.assert_array_equal(first, again)
    assert np.abs(first - other).max() > 1e-3


@pytest.mark.parametrize(("name", "module"), [("item_knn", item_knn_module), ("ials", ials_module)])
def test_catalogues_they_cannot_hold_are_refused(monkeypatch, name, module):
    monkeypatch.setattr(module, "LARGEST_CATALOGUE", 2)
    kind = {"item_knn": ItemKnn, "ials": Ials}[name]
    with pytest.raises(ConfigError, match=rf"'{name}'.*at most 2 titles, and there are 3.*Leave '{name}' out"):
        kind.fit(ABC, PLAYS, backoff=np.zeros(3))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"factors": 0, "regularisation": -1.0}, "factors 0 is not above zero; regularisation -1.0 is not above zero"),
        ({"unplayed_weight": float("nan")}, "unplayed_weight nan is below zero"),
    ],
)
def test_ials_options_are_checked_together(wrong, message):
    with pytest.raises(ConfigError, match=message):
        IalsOptions(**wrong)


@pytest.mark.parametrize(("neighbours", "shrinkage"), [(0, 1.0), (5, -1.0), (5, float("nan"))])
def test_item_knn_options_are_checked(neighbours, shrinkage):
    with pytest.raises(ConfigError, match="one neighbour or more and a shrinkage of zero or more"):
        ItemKnn.fit(ABC, PLAYS, neighbours, shrinkage, backoff=np.zeros(3))


def case_of(rows, titles, protocol="leave_one_out"):
    tables = world.tables_of(rows, titles=titles)
    return build_case(tables, make_split(protocol, tables.interactions), world.resolved_of(), "home")


@pytest.mark.parametrize("name", ["item_knn", "ials"])
def test_nothing_held_out_is_fitted_on(name):
    """All play 1 and 2 in the train fold; 3 and 4 are held out for everybody, so nothing is like them."""
    rows = [(m, t, float(d)) for m in "uvw" for d, t in enumerate(["1", "2", "3", "4"])]
    case = case_of(rows, ["1", "2", "3", "4", "5"])
    (chunk,) = case.chunks()
    scores = build_baseline(name, case).score(chunk.requests)
    assert (scores[:, :2] > 0).all()
    np.testing.assert_array_equal(scores[:, 2:], 0.0)


@pytest.mark.parametrize("name", ["popular", "item_knn", "ials"])
def test_until_a_moment_every_earlier_play_is_fitted_on(name):
    rows = [(m, t, float(d)) for m in "uvw" for d, t in enumerate(["1", "2", "3", "4"])]
    case = case_of(rows, ["1", "2", "3", "4", "5"])
    (chunk,) = case.chunks()
    scores = build_baseline(name, case, until=world.day(3)).score(chunk.requests)
    assert (scores[:, :3] > 0).all()  # 3 was played on day 2, 4 on day 3: not before it
    np.testing.assert_array_equal(scores[:, 3:], 0.0)
