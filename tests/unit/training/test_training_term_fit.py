from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import check_grad

from playbill.training import term_fit
from playbill.training.term_fit import CanvasSample, fit_weights, log_likelihood, scored

TITLES, TERMS = 20, 3


def sample(
    requests: int, weights: tuple[float, ...], *, scale: float = 1.0, beside: float | None = None, seed: int = 0
) -> CanvasSample:
    """Requests whose choices follow given weights of standard normal terms, beside heads of that scale.

    Of a term that the blend has by a written weight of 1 they follow `beside`; None = there is none.
    """
    generator = np.random.default_rng(seed)
    heads = generator.normal(size=(requests, TITLES)).astype(np.float32)
    blended = generator.normal(size=(requests, 0 if beside is None else 1, TITLES)).astype(np.float32)
    terms = generator.normal(size=(requests, TERMS, TITLES)).astype(np.float32)
    candidates = generator.random((requests, TITLES)) < 0.8
    candidates[:, 0] = True
    logits = scale * heads + np.einsum("k,nkt->nt", np.array(weights), terms) + (beside or 0.0) * blended.sum(axis=1)
    logits = np.where(candidates, logits + generator.gumbel(size=logits.shape), -np.inf)
    return CanvasSample(
        canvas=f"canvas{seed}",
        heads=np.where(candidates, heads, 0),
        blended=blended * candidates[:, None],
        terms=terms * candidates[:, None],
        candidates=candidates,
        rows=np.arange(requests),
        columns=logits.argmax(axis=1),
        length=generator.integers(0, 5, requests),
        fold=generator.integers(0, 4, requests),
        member=np.arange(requests),
    )


def test_weights_that_made_the_choices_are_found() -> None:
    found = fit_weights([sample(6_000, (0.8, 0.0, 0.3), scale=0.5)])
    assert found.scale[0] == pytest.approx(0.5, abs=0.05)
    assert found.own[0].mean(axis=0).tolist() == pytest.approx([0.8, 0.0, 0.3], abs=0.06)
    assert found.multipliers()[0].mean(axis=0).tolist() == pytest.approx([1.6, 0.0, 0.6], abs=0.15)


def test_few_requests_are_shrunk_towards_what_canvases_share() -> None:
    many, few = sample(4_000, (0.6, 0.0, 0.0)), sample(10, (0.0, 3.0, 0.0), seed=1)
    alone, together = fit_weights([few]), fit_weights([many, few])
    assert alone.multipliers().max() < 1.0
    assert alone.scale[0] > 0.3, "few requests do not say that a model is too sure of itself"
    assert together.own[1].mean(axis=0)[0] > 0.3, "what the other canvas says"
    assert together.own[1].mean(axis=0)[1] < alone.own[0].mean(axis=0)[1]


def test_terms_that_hurt_weigh_nothing() -> None:
    found = fit_weights([sample(2_000, (-0.5, 0.5, 0.0))])
    assert found.own[..., 0].max() == 0
    assert found.own[..., 1].min() > 0.2


def test_the_slopes_are_those_of_the_loss() -> None:
    own, generator = sample(50, (0.5, 0.1, 0.0), beside=0.4), np.random.default_rng(3)
    chosen = own.of_targets()

    def loss(point: np.ndarray) -> float:
        return term_fit.loss_and_slopes(own, point[0], point[1:2], point[2:].reshape(5, TERMS), chosen)[0]

    def slope(point: np.ndarray) -> np.ndarray:
        _, of_scale, of_blended, of_own = term_fit.loss_and_slopes(
            own, point[0], point[1:2], point[2:].reshape(5, TERMS), chosen
        )
        return np.concatenate([[of_scale], of_blended, of_own.ravel()])

    point = generator.random(2 + 5 * TERMS)
    assert check_grad(loss, slope, point, epsilon=1e-3) < 0.1 * np.linalg.norm(slope(point))


def test_several_titles_of_one_request_count_as_one() -> None:
    own = sample(100, (0.5, 0.0, 0.0))
    twice = CanvasSample(
        **{
            name: getattr(own, name)
            for name in ("canvas", "heads", "blended", "terms", "candidates", "length", "fold", "member")
        },
        rows=np.repeat(own.rows, 2),
        columns=np.repeat(own.columns, 2),
    )
    np.testing.assert_allclose(fit_weights([own]).own, fit_weights([twice]).own, atol=1e-3)


def test_a_part_keeps_its_targets() -> None:
    own = sample(30, (0.5, 0.0, 0.0))
    kept = own.fold == 2
    part = own.part(kept)
    assert len(part) == kept.sum() == len(part.rows)
    np.testing.assert_array_equal(part.columns, own.columns[kept])
    np.testing.assert_array_equal(part.rows, np.arange(len(part)))


def test_a_canvas_without_requests_has_what_others_share() -> None:
    own = sample(3_000, (0.6, 0.0, 0.0))
    nothing = own.part(np.zeros(3_000, np.bool_))
    found = fit_weights([own, nothing])
    assert found.own[1].mean(axis=0)[0] == pytest.approx(found.shared[0], rel=0.1)


def test_a_blended_term_gets_the_weight_that_made_the_choices_and_few_requests_leave_it_as_written() -> None:
    many, few = sample(4_000, (0.5, 0.0, 0.0), beside=0.2), sample(5, (0.5, 0.0, 0.0), beside=0.0, seed=1)
    found = fit_weights([many, few]).blended_multipliers()
    assert found[0] == pytest.approx([0.2], abs=0.05)
    assert found[1][0] > 0.7
    hurts = fit_weights([sample(2_000, (0.5, 0.0, 0.0), beside=-0.5)])
    assert hurts.blended[0] == pytest.approx([0.0], abs=0.01), "a written sign never turns"


def test_a_blended_term_follows_the_scale_of_its_heads() -> None:
    found = fit_weights([sample(6_000, (0.0, 0.0, 0.0), scale=0.5, beside=0.5)])
    assert found.blended_multipliers()[0] == pytest.approx([1.0], abs=0.1)
    own = sample(30, (0.0, 0.0, 0.0), beside=1.0)
    as_one = own.as_written()
    np.testing.assert_allclose(as_one.heads, own.heads + own.blended[:, 0])
    assert as_one.blended.shape[1] == as_one.terms.shape[1] == 0
    assert fit_weights([as_one]).own.shape == (1, 5, 0)


def test_likelihood_is_that_of_a_softmax_over_candidates() -> None:
    own = sample(20, (0.5, 0.0, 0.0), beside=0.4)
    scores = scored(own, 1.0, np.array([0.4]), np.tile([0.5, 0.0, 0.0], (20, 1)))
    expected = np.where(own.candidates, scores, -np.inf).astype(np.float64)
    expected -= np.log(np.exp(expected).sum(axis=1, keepdims=True))
    np.testing.assert_allclose(log_likelihood(own, scores), expected[own.rows, own.columns], rtol=1e-5)


def test_what_is_no_candidate_is_never_chosen() -> None:
    own = sample(20, (0.5, 0.0, 0.0))
    scores = scored(own, 1.0, np.zeros(0), np.ones((20, TERMS)))
    assert (scores[~own.candidates] < -1e8).all()
    assert (scores[own.candidates] > -1e3).all()
