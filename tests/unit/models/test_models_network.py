"""What the whole network promises: no peeking, no padding effects, new titles, search, unknown values."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from playbill.datasets.encoding.tokens import OUTCOME_FACTS
from playbill.models import ContextBatch, HistoryBatch, Network, NetworkConfig, TargetBatch, TitleInputs

Contexts = Callable[..., ContextBatch]
Batch = tuple[HistoryBatch, ContextBatch, TargetBatch]


def changed(history: HistoryBatch, position: int, names: tuple[str, ...]) -> HistoryBatch:
    fields = {}
    for name in names:
        values = getattr(history, name).clone()
        values[0, position:] = torch.tensor([1, 2, 1, 2, 1])[: values.shape[1] - position]
        fields[name] = values
    return dataclasses.replace(history, **fields)


@pytest.mark.parametrize("event", [0, 2, 4])
def test_an_events_post_action_fields_never_reach_the_state_that_predicts_it(
    trained: Network, history: HistoryBatch, titles: TitleInputs, context_of: Contexts, event: int
) -> None:
    context = context_of([event])
    before = trained.scores(history, context, titles)
    after = trained.scores(changed(history, event, OUTCOME_FACTS), context, titles)
    later = trained.scores(changed(history, event, OUTCOME_FACTS), context_of([event + 1]), titles)
    for head, scores in before.items():
        assert torch.equal(scores, after[head])
        assert not torch.equal(scores, later[head])


@pytest.mark.parametrize("fact", ["canvas", "country", "device", "language", "hour_of_week"])
def test_the_request_time_facts_of_an_event_reach_the_state_that_predicts_it(
    trained: Network, history: HistoryBatch, titles: TitleInputs, context_of: Contexts, fact: str
) -> None:
    """By the request's context: in the event's own token they reach the states after it alone."""
    before = trained.scores(history, context_of([2]), titles)["play"]
    assert not torch.equal(before, trained.scores(history, context_of([2], **{fact: [2]}), titles)["play"])
    if hasattr(history, fact):
        own_token = trained.scores(changed(history, 2, (fact,)), context_of([2]), titles)["play"]
        assert torch.equal(before, own_token)


def test_states_depend_on_the_past_only(trained: Network, history: HistoryBatch, titles: TitleInputs) -> None:
    vectors = trained.title_vectors(titles)
    every = tuple(HistoryBatch.DTYPES.keys() - {"length"})
    for position in range(5):
        plain = trained.states(history, vectors)
        moved = trained.states(changed(history, position, every), vectors)
        assert torch.equal(plain[0, : position + 1], moved[0, : position + 1])
        assert not torch.allclose(plain[0, position + 1], moved[0, position + 1])


@pytest.mark.parametrize("places", [[5], [0, 8], [3, 3, 8, 3], [0, 1, 2, 3, 4, 7, 8]])
def test_states_at_chosen_places_are_those_of_the_whole(
    trained: Network, history: HistoryBatch, titles: TitleInputs, context_of: Contexts, places: list[int]
) -> None:
    """Up to one place for each member the last block is computed at the places alone."""
    vectors, context = trained.title_vectors(titles), context_of(places)
    whole = trained.states(history, vectors).flatten(0, 1)[context.state]
    torch.testing.assert_close(trained.last_states(history, context, vectors), whole)


def test_padding_and_neighbours_change_nothing(
    trained: Network, history_arrays: SimpleNamespace, titles: TitleInputs, context_of: Contexts
) -> None:
    both = trained.scores(HistoryBatch.from_arrays(history_arrays), context_of([6 + 2]), titles)
    alone = SimpleNamespace(
        **{name: values[1:, :2] if values.ndim == 2 else values[1:] for name, values in vars(history_arrays).items()}
    )
    single = trained.scores(HistoryBatch.from_arrays(alone), context_of([2]), titles)
    for head in both:
        torch.testing.assert_close(both[head], single[head], rtol=1e-5, atol=1e-5)


def test_kept_title_vectors_give_the_same_scores(
    trained: Network, history: HistoryBatch, titles: TitleInputs, context_of: Contexts
) -> None:
    context = context_of([5, 8])
    kept = trained.title_vectors(titles)
    fresh = trained.scores(history, context, titles)
    for head, scores in trained.scores(history, context, titles, kept).items():
        assert torch.equal(scores, fresh[head])


def test_scores_cover_every_title_and_padding_never_wins(
    trained: Network, history: HistoryBatch, titles: TitleInputs, context_of: Contexts
) -> None:
    scores = trained.scores(history, context_of([0, 5, 8], snapshot=np.array([0, 1, 3])), titles)
    assert set(scores) == {"play", "thumb"}
    for values in scores.values():
        assert values.shape == (3, titles.count)
        assert values.dtype == torch.float32
        assert torch.isfinite(values).all()
        assert values.argmax(dim=1).gt(0).all()


def test_an_untrained_network_finds_a_title_by_part_of_its_name(
    network: Network, history: HistoryBatch, titles: TitleInputs, context_of: Contexts
) -> None:
    grams = np.array([11, 10, 30])
    context = context_of([0, 5, 8], query_grams=grams, query_offsets=np.array([0, 1, 2]))
    found = network.scores(history, context, titles)["play"].argmax(dim=1)
    assert found.tolist() == [1, 1, 3]


def test_a_query_that_matches_nothing_still_ranks(
    trained: Network, history: HistoryBatch, titles: TitleInputs, context_of: Contexts
) -> None:
    scores = trained.scores(history, context_of([5], query_grams=np.array([60])), titles)["play"]
    assert torch.isfinite(scores).all()
    assert scores[0, 1:].unique().numel() > 1


def test_a_title_that_came_after_training_is_scored_by_its_metadata(
    trained: Network, history: HistoryBatch, title_arrays: SimpleNamespace, context_of: Contexts
) -> None:
    grown = SimpleNamespace(**vars(title_arrays))
    like = {
        "kind": 1,
        "language": 1,
        "release_year": 1,
        "age_days": -3.0,
        "plays": 0.0,
        "has_id": False,
        "index": 0,
    }
    for name, value in like.items():
        grown.__dict__[name] = np.append(getattr(grown, name), [value, value])
    grown.genres = np.append(grown.genres, [1, 3])
    grown.genre_offsets = np.append(grown.genre_offsets, [5, 6])
    for name in ("name", "synopsis"):
        end = len(getattr(grown, f"{name}_grams"))
        grown.__dict__[f"{name}_offsets"] = np.append(getattr(grown, f"{name}_offsets"), [end, end])
    grown.numeric = np.concatenate([grown.numeric, [[95.0], [95.0]]]).astype(np.float32)
    grown.categorical = np.concatenate([grown.categorical, [[1], [1]]])
    grown.snapshots = np.concatenate([grown.snapshots, np.full((4, 2, 2), np.nan, np.float32)], axis=1)
    titles = TitleInputs.from_arrays(grown)
    vectors = trained.title_vectors(titles).vectors
    assert vectors[-1].norm() > 0
    assert not torch.allclose(vectors[-1], vectors[-2]), "another genre is another vector"
    old = trained.title_vectors(TitleInputs.from_arrays(title_arrays)).vectors
    torch.testing.assert_close(vectors[:-2], old)
    scores = trained.scores(history, context_of([5]), titles)["play"]
    assert scores.shape == (1, titles.count)
    assert torch.isfinite(scores).all()


def test_values_unseen_in_training_are_neutral(network: Network, batch: Batch, titles: TitleInputs) -> None:
    history, context, targets = batch
    optimizer = torch.optim.AdamW(network.parameters(), lr=0.01)
    for _ in range(5):
        optimizer.zero_grad()
        network.loss(history, context, targets, titles)[0].backward()
        optimizer.step()
    others = [dataclasses.replace(context, canvas=torch.full_like(context.canvas, canvas)) for canvas in (0, 2, 4)]
    first, *rest = [network.scores(history, other, titles)["play"] for other in others]
    seen = network.scores(history, context, titles)["play"]
    assert not torch.allclose(first, seen)
    for scores in rest:
        assert torch.equal(first, scores)


def test_missing_numbers_are_a_value_of_their_own(
    trained: Network, history: HistoryBatch, titles: TitleInputs, context_of: Contexts
) -> None:
    def scores(value: float) -> torch.Tensor:
        return trained.scores(history, context_of([5], numeric=np.array([[value, 1.0]], np.float32)), titles)["play"]

    assert torch.isfinite(scores(np.nan)).all()
    assert not torch.allclose(scores(np.nan), scores(0.0))


def test_unlabelled_rows_train_nothing(network: Network, batch: Batch, titles: TitleInputs) -> None:
    history, context, targets = batch
    _, losses = network.loss(history, context, targets, titles)
    title = targets.title.clone()
    title[5] = 2
    _, moved = network.loss(history, context, dataclasses.replace(targets, title=title), titles)
    assert moved["thumb"] == losses["thumb"], "row 5 has no thumb"
    assert moved["play"] != losses["play"]
    nothing = {name: torch.full_like(label, float("nan")) for name, label in targets.labels.items()}
    loss, _ = network.loss(history, context, dataclasses.replace(targets, labels=nothing), titles)
    assert loss.item() == 0


def test_row_weights_and_labels_scale_a_rows_share(network: Network, batch: Batch, titles: TitleInputs) -> None:
    history, context, targets = batch
    doubled = dataclasses.replace(targets, weight=targets.weight * 2)
    assert network.loss(history, context, doubled, titles)[0].item() == pytest.approx(
        network.loss(history, context, targets, titles)[0].item(), rel=1e-5
    )
    weights = network.head_weights(targets)
    assert weights.tolist() == pytest.approx([1 + 1 + 0 + 2 + 1 + 1, 1 + 1 + 1 + 0.5])


def test_the_network_overfits_a_tiny_problem(network: Network, batch: Batch, titles: TitleInputs) -> None:
    history, context, targets = batch
    network.train()
    optimizer = torch.optim.AdamW(network.parameters(), lr=0.01)
    first = network.loss(history, context, targets, titles)[0].item()
    for _ in range(120):
        optimizer.zero_grad()
        loss, _ = network.loss(history, context, targets, titles)
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.3 * first


def test_every_parameter_of_a_full_batch_is_trained(trained: Network, batch: Batch, titles: TitleInputs) -> None:
    history, context, targets = batch
    requested = dataclasses.replace(
        context,
        query_grams=torch.tensor([10, 20]),
        query_offsets=torch.tensor([0, 1, 2, 2, 2, 2, 2]),
        source_title=torch.tensor([0, 0, 1, 0, 0, 0, 0]),
    )
    trained.loss(history, requested, targets, titles)[0].backward()
    idle = [name for name, parameter in trained.named_parameters() if parameter.grad is None]
    assert idle == []


def test_calibration_uses_training_statistics(network: Network, titles: TitleInputs) -> None:
    numeric = torch.tensor([[1.0, float("nan")], [3.0, 5.0], [float("nan"), 5.0]])
    network.calibrate(numeric, titles)
    normal = network.context.normalise(numeric)
    assert normal[:2, 0].mean().abs() < 1e-6
    assert normal[:, 1].tolist() == [0, 0, 0], "a constant has no spread"
    assert normal[:, 2].tolist() == [0, 0, 1], "the flag of the missing one"


def test_start_vectors_are_taken_over(network: Network, config: NetworkConfig, titles: TitleInputs) -> None:
    vectors = torch.randn(config.titles.titles, config.trunk.dim)
    network.start_titles(vectors)
    assert torch.equal(network.titles.id.weight[1:], vectors[1:])
    assert network.titles.id.weight[0].abs().sum() == 0


def test_hidden_ids_leave_metadata_in_training_only(config: NetworkConfig, titles: TitleInputs) -> None:
    hidden = config.model_copy(update={"titles": config.titles.model_copy(update={"id_mask": 0.9})})
    torch.manual_seed(0)
    network = Network(hidden).train()
    network.titles.id.weight.data.add_(1)
    first, second = network.title_vectors(titles).vectors, network.title_vectors(titles).vectors
    assert not torch.equal(first, second)
    network.eval()
    assert torch.equal(network.title_vectors(titles).vectors, network.title_vectors(titles).vectors)


@pytest.mark.parametrize(
    "switches", [{"metadata": False}, {"id_embedding": False}, {"age_gate": False}, {"snapshot": 0, "numeric": 0}]
)
def test_parts_of_the_title_tower_can_be_switched_off(
    config: NetworkConfig, batch: Batch, titles: TitleInputs, switches: dict[str, int]
) -> None:
    network = Network(config.model_copy(update={"titles": config.titles.model_copy(update=switches)}))
    if "snapshot" in switches:
        titles = dataclasses.replace(titles, snapshots=titles.snapshots[..., :0], numeric=titles.numeric[:, :0])
    loss, _ = network.loss(*batch, titles)
    loss.backward()
    assert torch.isfinite(loss)


def test_configuration_survives_json(config: NetworkConfig) -> None:
    assert NetworkConfig.from_json(config.to_json()) == config
    with pytest.raises(ValueError, match="dimm"):
        NetworkConfig.from_json(config.to_json().replace('"dim": 16', '"dimm": 16'))
    with pytest.raises(ValueError, match="not a multiple"):
        NetworkConfig.from_json(config.to_json().replace('"dim": 16', '"dim": 15'))


def test_numbers_given_for_a_title_count_whatever_its_age(trained: Network, titles: TitleInputs) -> None:
    known = trained.title_vectors(titles).vectors
    numeric = titles.numeric.clone()
    numeric[1:3] = 7.0
    moved = (trained.title_vectors(dataclasses.replace(titles, numeric=numeric)).vectors - known).abs().amax(dim=-1)
    assert moved[1:3].min() > 1e-3  # an old title with many plays as much as any
    assert moved[3:].max() == 0
