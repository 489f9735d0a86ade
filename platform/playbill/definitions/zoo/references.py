"""Mistakes that only show across files: unknown names, blends of heads a model lacks, gates on nothing."""

from __future__ import annotations

from collections.abc import Iterator
from typing import cast

from playbill.definitions.specs import (
    CanvasSpec,
    EnsembleSpec,
    LabelSpec,
    ModelSpec,
    RewardSpec,
    RowSpec,
    split_reference,
)
from playbill.definitions.specs.base import format_duration
from playbill.definitions.specs.canvas import TERMS
from playbill.definitions.specs.measures import BESIDE, LOGGED, PLAYED
from playbill.definitions.zoo.feature_repo import FeatureNames
from playbill.definitions.zoo.kind_checks import (
    check_ensemble,
    check_levels,
    check_page,
    check_ranked_rows,
    check_reward,
    check_rewarded_heads,
    check_row_canvas,
    unweighted_negatives,
)
from playbill.definitions.zoo.parsing import Checked, DefinitionIndex, place_of
from playbill.definitions.zoo.resolve import rows_of_model, rows_of_others
from playbill.definitions.zoo.yaml_tree import problem
from playbill.errors import Problem, did_you_mean

Path = tuple[str | int, ...]


def check_references(index: DefinitionIndex, features: FeatureNames | None) -> Iterator[tuple[Checked, Problem]]:
    """Yield definitions with what is wrong with what one says about another, and models about feature_repo/.

    A mistake of a model with a shared canvas or row is the model's, wherever it is written.
    """
    for checked in index.all_checked():
        yield from ((checked, found) for found in _check(index, checked, features))


def _check(index: DefinitionIndex, checked: Checked, features: FeatureNames | None) -> Iterator[Problem]:
    for kind, reference, path, is_key in references(checked):
        shifted = len(path) > 1 and isinstance(path[1], int) and not checked.knows(str(path[0]))
        if path[0] in checked.absent or shifted:
            continue
        wrong = index.missing(kind, reference)
        if wrong is not None:
            yield problem(place_of(checked, path, key=is_key), path, *wrong)
    match checked.spec:
        case CanvasSpec():
            yield from _check_canvas(index, checked, checked.spec)
            yield from check_row_canvas(index, checked, checked.spec)
        case ModelSpec():
            yield from _check_model(index, checked, checked.spec, features)
        case RewardSpec():
            yield from check_reward(index, checked, checked.spec)
        case EnsembleSpec():
            yield from check_ensemble(index, checked, checked.spec)


def notes(index: DefinitionIndex) -> Iterator[Problem]:
    """Return what is no mistake but will not do what it seems to say."""
    yield from index.notes
    for checked in index.all_checked():
        match checked.spec:
            case ModelSpec() as model:
                yield from _one_sided(index, checked, model)
                yield from unweighted_negatives(index, checked, model)
                yield from _rows_left_out(index, model)


def _rows_left_out(index: DefinitionIndex, model: ModelSpec) -> Iterator[Problem]:
    for name, lacks in rows_of_others(index, model).items():
        row = index.find("Row", name)
        if row is not None:
            what = f"row '{name}' is left out of model '{model.reference}', which {lacks}"
            yield problem(place_of(row, ("name",), key=True), (), what)


def _one_sided(index: DefinitionIndex, checked: Checked, model: ModelSpec) -> Iterator[Problem]:
    for name, head in model.heads.items():
        found = index.find("Label", head.label) if head.label else None
        if head.loss != "bce" or found is None:
            continue
        label = cast(LabelSpec, found.spec)
        if label.extractor or label.negatives.actions or label.negatives.shown_not_played or head.draws:
            continue
        path: Path = ("heads", name)
        what = f"label '{label.name}' has no negatives, so a bce head learns that everything is 1"
        hint = "Give the label 'negatives', or the head a policy that draws some, or use softmax."
        yield problem(place_of(checked, path), path, what, hint)


def references(checked: Checked) -> Iterator[tuple[str, str, Path, bool]]:
    """Yield (kind, reference, path, whether it is a key) for everything a definition refers to."""
    match checked.spec:
        case RewardSpec() as reward:
            yield from (("Label", term, ("terms", term), True) for term in reward.terms)
        case CanvasSpec() as canvas:
            yield "Label", canvas.metric, ("metric",), False
            if canvas.rows_of is not None:
                yield "Canvas", canvas.rows_of, ("rows_of",), False
            yield from (("Row", row, ("rows", index), False) for index, row in enumerate(canvas.rows))
        case RowSpec() as row:
            yield "Canvas", row.canvas, ("canvas",), False
            if row.scored_as is not None:
                yield "Canvas", row.scored_as, ("scored_as",), False
        case ModelSpec() as model:
            yield from _model_references(model)
        case EnsembleSpec() as ensemble:
            for role, member in ensemble.models.items():
                # A number is that of a registered version, as everywhere where a model is a trained one.
                yield "Model", str(member.name), ("members", role), False


def _model_references(model: ModelSpec) -> Iterator[tuple[str, str, Path, bool]]:
    yield from (("Canvas", canvas, ("canvases", index), False) for index, canvas in enumerate(model.canvases))
    yield from (("Row", row, ("rows", index), False) for index, row in enumerate(model.rows or ()))
    for name, head in model.heads.items():
        if head.label is not None:
            yield "Label", head.label, ("heads", name, "label"), False
        if head.reward is not None:
            yield "Reward", head.reward, ("heads", name, "reward"), False
    if model.evaluate.reward is not None:
        yield "Reward", model.evaluate.reward, ("evaluate", "reward"), False
    for index, gate in enumerate(model.gates):
        if gate.reward not in (None, PLAYED):
            yield "Reward", gate.reward, ("gates", index, "reward"), False
    if model.init_from is not None:
        yield "Model", model.init_from.name, ("init_from",), False


def _check_start(checked: Checked, model: ModelSpec) -> Iterator[Problem]:
    start, path = model.init_from, ("init_from",)
    if start is not None and start.name == model.name and not start.pinned:
        what = f"model '{model.name}' starts from itself, which would be another version in every run"
        hint = f"Say which version: {model.name}@champion, or {model.name}:1."
        yield problem(place_of(checked, path), path, what, hint)


def _check_canvas(index: DefinitionIndex, checked: Checked, canvas: CanvasSpec) -> Iterator[Problem]:
    names = [split_reference(reference)[0] for reference in canvas.rows]
    for place, reference in enumerate(canvas.rows):
        if names[place] in names[:place]:
            twice: Path = ("rows", place)
            yield problem(place_of(checked, twice), twice, f"'{names[place]}' is listed twice")
        found = index.find("Row", reference)
        row = cast(RowSpec, found.spec) if found and found.knows("canvas") and checked.knows("name") else None
        if row is not None and split_reference(row.canvas)[0] != canvas.name:
            path: Path = ("rows", place)
            yield problem(place_of(checked, path), path, f"row '{row.name}' is on canvas '{row.canvas}'")


def _check_model(
    index: DefinitionIndex, checked: Checked, model: ModelSpec, features: FeatureNames | None
) -> Iterator[Problem]:
    yield from _check_service(checked, model, features)
    yield from _check_versions(checked, model)
    yield from _check_windows(index, checked, model)
    yield from check_rewarded_heads(index, checked, model)
    yield from _check_start(checked, model)
    if checked.knows("canvases", "evaluate", "gates"):
        yield from _check_gates(checked, model)
    if not checked.knows("canvases"):
        return
    yield from _check_tasks(index, checked, model)
    if "heads" in checked.absent:
        return
    canvases = [found for reference in model.canvases if (found := index.find("Canvas", reference)) is not None]
    heads, rows = list(checked.node.find(("heads",)).keys), list(rows_of_model(index, model))
    for found in canvases:
        yield from _check_blend(found, checked, model, cast(CanvasSpec, found.spec).blend)
        yield from check_page(index, found, model, rows, heads)
        yield from check_ranked_rows(index, found, model, rows)
    yield from _check_rows(index, checked, model)
    yield from check_levels(index, checked, model, canvases, rows)


def _check_service(checked: Checked, model: ModelSpec, features: FeatureNames | None) -> Iterator[Problem]:
    if features is None or features.computed or not checked.knows("features"):
        return
    if model.features in features.services:
        return
    known = f"Feature services in feature_repo: {', '.join(sorted(features.services)) or 'none'}."
    hint = did_you_mean(model.features, features.services, known)
    what = f"unknown feature service '{model.features}'"
    yield problem(place_of(checked, ("features",)), ("features",), what, hint)


def _check_versions(checked: Checked, model: ModelSpec) -> Iterator[Problem]:
    """A model uses one version of each definition, so that its parts can be called by plain names."""
    lists = (("canvases", model.canvases), ("rows", model.rows or ()))
    for key, references in lists:
        seen: dict[str, str] = {}
        for index, reference in enumerate(references):
            name, _ = split_reference(reference)
            if name in seen:
                path: Path = (key, index)
                yield problem(place_of(checked, path), path, f"'{name}' is listed twice")
            seen[name] = reference
    labels: dict[str, str] = {}
    for head, spec in model.heads.items():
        if spec.label is None:
            continue
        name, _ = split_reference(spec.label)
        if labels.setdefault(name, spec.label) != spec.label:
            path = ("heads", head, "label")
            yield problem(place_of(checked, path), path, f"two versions of label '{name}' in one model")


def _check_windows(index: DefinitionIndex, checked: Checked, model: ModelSpec) -> Iterator[Problem]:
    """Leave-one-out takes members' last events away, so an outcome that a label waits for may be held out."""
    if model.evaluate.protocol != "leave_one_out" or not checked.knows("evaluate"):
        return
    for name, head in model.heads.items():
        found = index.find("Label", head.label) if head.label and not head.optional else None
        label = cast(LabelSpec, found.spec) if found is not None and not found.mistaken else None
        if label is not None and label.attribution_window:
            path: Path = ("heads", name, "label")
            what = (
                f"label '{label.name}' waits {format_duration(label.attribution_window)} for an outcome, and protocol "
            )
            what += "leave_one_out holds outcomes out without a gap in time"
            hint = (
                "Evaluate by auto or global_time, or say 'optional: true' to leave the head out where it does not fit."
            )
            yield problem(place_of(checked, path), path, what, hint)


def _check_tasks(index: DefinitionIndex, checked: Checked, model: ModelSpec) -> Iterator[Problem]:
    names = {split_reference(reference)[0]: reference for reference in model.canvases}
    for canvas, task in model.tasks.items():
        path: Path = ("tasks", canvas)
        if canvas not in names:
            hint = did_you_mean(canvas, names, f"Canvases: {', '.join(names)}.")
            yield problem(place_of(checked, path, key=True), path, f"the model has no canvas '{canvas}'", hint)
            continue
        found = index.find("Canvas", names[canvas])
        needed = "query" if task.source == "title_names" else "source_title"
        if found is not None and found.knows("context") and needed not in cast(CanvasSpec, found.spec).context:
            what = f"'{task.source}' makes a {needed}, which canvas '{canvas}' has not in its context"
            yield problem(place_of(checked, (*path, "from")), (*path, "from"), what)


def _check_gates(checked: Checked, model: ModelSpec) -> Iterator[Problem]:
    canvases = ["all", *(split_reference(reference)[0] for reference in model.canvases)]
    for index, gate in enumerate(model.gates):
        choices = (
            ("canvas", gate.canvas, canvases),
            ("against", gate.against, ["champion", LOGGED, *dict.fromkeys((*BESIDE, *model.evaluate.baselines))]),
            ("slice", gate.slice, [None, *model.evaluate.slices]),
            ("head", gate.head, [None, *(name for name, head in model.heads.items() if head.auxiliary is None)]),
            ("metric", gate.metric.partition("@")[2], ["", *map(str, model.evaluate.k)]),
        )
        for key, value, allowed in choices:
            if value in allowed:
                continue
            path: Path = ("gates", index, key)
            shown = [item for item in allowed if item]
            hint = did_you_mean(str(value), shown, f"Known: {', '.join(shown)}.")
            what = f"cut-off {value} is not in evaluate.k" if key == "metric" else f"'{value}' is not measured"
            yield problem(place_of(checked, path), path, what, hint)


def _check_blend(owner: Checked, checked: Checked, model: ModelSpec, blend: dict[str, float]) -> Iterator[Problem]:
    heads = list(checked.node.find(("heads",)).keys)
    for head in blend if "blend" not in owner.absent else ():
        path: Path = ("blend", head)
        place = place_of(owner, path, key=True)
        if head in TERMS:
            continue
        if head not in heads:
            hint = did_you_mean(head, [*heads, *TERMS], f"Heads: {', '.join(heads)}.")
            yield problem(place, path, f"model '{model.name}' has no head '{head}'", hint)
        elif head in model.heads and model.heads[head].label is None:
            yield problem(place, path, f"head '{head}' of model '{model.name}' is auxiliary and scores no titles")


def _check_rows(index: DefinitionIndex, checked: Checked, model: ModelSpec) -> Iterator[Problem]:
    canvases = [split_reference(reference)[0] for reference in model.canvases]
    for place, reference in enumerate(model.rows or ()):
        found = index.find("Row", reference)
        row = cast(RowSpec, found.spec) if found and found.knows("canvas") else None
        if row is not None and split_reference(row.canvas)[0] not in canvases:
            path: Path = ("rows", place)
            yield problem(place_of(checked, path), path, f"its canvas '{row.canvas}' is not among the model's")
    for found in rows_of_model(index, model):
        row = cast(RowSpec, found.spec)
        yield from _check_blend(found, checked, model, row.blend or {})
        if row.scored_as is not None and split_reference(row.scored_as)[0] not in canvases:
            what = f"model '{model.name}' shows this row but has no canvas '{row.scored_as}'"
            yield problem(place_of(found, ("scored_as",)), ("scored_as",), what)
