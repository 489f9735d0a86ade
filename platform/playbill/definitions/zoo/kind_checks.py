"""Mistakes that show only across files.

Pages and rows, rewards and labels, a canvas of rows and the page it ranks, an ensemble and its members.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import cast

from playbill.definitions.specs import (
    CanvasSpec,
    EnsembleSpec,
    HeadSpec,
    LabelSpec,
    MemberSpec,
    ModelSpec,
    RewardSpec,
    RowSpec,
    split_reference,
)
from playbill.definitions.specs.base import format_duration
from playbill.definitions.specs.canvas import OF_THE_PAGE, PageSpec
from playbill.definitions.specs.resolved import attribution, matures_after
from playbill.definitions.specs.reward import REWARDED, TermSpec
from playbill.definitions.zoo.parsing import Checked, DefinitionIndex, place_of
from playbill.definitions.zoo.resolve import rows_of_others
from playbill.definitions.zoo.yaml_tree import problem
from playbill.errors import Problem, did_you_mean

Path = tuple[str | int, ...]


def check_page(
    index: DefinitionIndex, owner: Checked, model: ModelSpec, rows: list[Checked], known: list[str]
) -> Iterator[Problem]:
    """Check the page of a canvas: its heads are the model's, of the right level; its rows are the canvas's."""
    canvas = cast(CanvasSpec, owner.spec)
    page = canvas.page
    if page is None or "page" in owner.absent:
        return
    yield from _check_heads(index, owner, model, page, known)
    own = [row.spec.name for row in rows if split_reference(cast(RowSpec, row.spec).canvas)[0] == canvas.name]
    own += rows_of_others(index, model)
    named: list[tuple[Path, str]] = [(("page", "pinned", at), one) for at, one in enumerate(page.pinned)]
    if page.placed is not None:
        named.append((("page", "placed", "row"), page.placed.row))
    for path, reference in named:
        name = split_reference(reference)[0]
        if name not in own and not index.unread_as("Row", name):
            hint = did_you_mean(name, own, f"Rows: {', '.join(own) or 'none'}.")
            what = f"model '{model.name}' has no row '{name}' on canvas '{canvas.name}'"
            yield problem(place_of(owner, path), path, what, hint)


def check_levels(
    index: DefinitionIndex, checked: Checked, model: ModelSpec, canvases: list[Checked], rows: list[Checked]
) -> Iterator[Problem]:
    """Check that heads about rows and pages learn yes or no, and that lists blend heads about what they list."""
    levels = {name: _level(index, model, name) for name in model.heads}
    for name, level in levels.items():
        head = model.heads[name]
        if level in (None, "title"):
            continue
        if head.loss != "bce" or head.negatives is not None:
            path: Path = ("heads", name)
            what = f"a head about a {level} learns whether its label holds, so its loss is 'bce' without 'negatives'"
            yield problem(place_of(checked, path), path, what)
    for owner in (*canvases, *rows):
        blend, ranked = cast(CanvasSpec | RowSpec, owner.spec).blend or {}, getattr(owner.spec, "target", "title")
        for name in model.heads if "blend" not in owner.absent else ():
            own = levels[name]
            if name not in blend or own in (None, ranked):
                continue
            path = ("blend", name)
            what = f"head '{name}' of model '{model.name}' is about a {own} and scores no {ranked}s"
            level = "Blend it under the canvas's 'page'." if ranked == "title" else "Use one whose label is about rows."
            yield problem(place_of(owner, path, key=True), path, what, level)


def _check_heads(
    index: DefinitionIndex, owner: Checked, model: ModelSpec, page: PageSpec, known: list[str]
) -> Iterator[Problem]:
    requested: list[tuple[Path, str, str]] = [(("page", "blend", head), head, "row") for head in page.blend]
    if page.placed is not None:
        requested.append((("page", "placed", "head"), page.placed.head, "page"))
    if page.expected is not None:
        requested.append((("page", "expected", "head"), page.expected.head, "title"))
    for path, head, level in requested:
        yield from _check_head(index, owner, model, path, (head, level), known)
        if level == "title" and head in model.heads and model.heads[head].loss != "bce":
            what = f"head '{head}' of model '{model.name}' has loss '{model.heads[head].loss}' and no probabilities"
            yield problem(place_of(owner, path), path, what, "Use a head with loss 'bce' for a row's expected play.")


def _level(index: DefinitionIndex, model: ModelSpec, head: str) -> str | None:
    """Return what a head is about, or None while mistakes hide it."""
    reference = model.heads[head].label
    if reference is None:
        return "title"
    found = index.find("Label", reference)
    return cast(LabelSpec, found.spec).level if found is not None and found.knows("level", "extractor") else None


def _check_head(
    index: DefinitionIndex, owner: Checked, model: ModelSpec, path: Path, requested: tuple[str, str], known: list[str]
) -> Iterator[Problem]:
    head, level = requested
    place = place_of(owner, path, key=path[1] == "blend")
    if head not in known:
        hint = did_you_mean(head, known, f"Heads: {', '.join(known)}.")
        yield problem(place, path, f"model '{model.name}' has no head '{head}'", hint)
        return
    own = _level(index, model, head) if head in model.heads else level
    if own not in (None, level):
        what = f"head '{head}' of model '{model.name}' is about a {own}, not about a {level}"
        yield problem(place, path, what, f"Use a head whose label has `level: {level}`.")


def check_reward(index: DefinitionIndex, checked: Checked, reward: RewardSpec) -> Iterator[Problem]:
    """Check a reward's terms against the labels they name; unknown labels are reported elsewhere."""
    if not checked.knows("terms"):
        return
    seen: dict[str, str] = {}
    for reference, term in reward.terms.items():
        name = split_reference(reference)[0]
        if seen.setdefault(name, reference) != reference:
            path: Path = ("terms", reference)
            yield problem(place_of(checked, path, key=True), path, f"label '{name}' is a term twice")
        label = _label(index, reference)
        if label is not None:
            yield from _check_term(checked, reference, term, label)
    yield from _late_terms(index, checked, reward)
    for place, reference in enumerate(reward.delayed if checked.knows("delayed") else ()):
        label = _label(index, reference)
        if label is not None and matures_after(reward.terms[reference], label, "play") == timedelta(0):
            path = ("delayed", place)
            what = f"label '{label.name}' has no window, so nothing of it is ever too young to predict"
            hint = "Give the label a 'window', the term a 'within', or leave it out of 'delayed'."
            yield problem(place_of(checked, path), path, what, hint)


def _late_terms(index: DefinitionIndex, checked: Checked, reward: RewardSpec) -> Iterator[Problem]:
    """Yield the terms that are final later than the reward says it is."""
    if reward.matures_after is None or not checked.knows("matures_after"):
        return
    for reference, term in reward.terms.items():
        label = _label(index, reference)
        takes = max(matures_after(term, label, action) for action in REWARDED) if label is not None else timedelta(0)
        if takes > reward.matures_after:
            path: Path = ("terms", reference)
            promised = format_duration(reward.matures_after)
            what = f"is final after {format_duration(takes)}, later than the {promised} of the reward's 'matures_after'"
            yield problem(place_of(checked, path, key=True), path, what, "Raise it, or shorten the label's window.")


def _check_term(checked: Checked, reference: str, term: TermSpec, label: LabelSpec) -> Iterator[Problem]:
    path: Path = ("terms", reference)
    if label.level != "title":
        what = f"label '{label.name}' is about a whole {label.level}, and rewards are about single titles"
        yield problem(place_of(checked, path, key=True), path, what, "Use a label of level 'title'.")
    elif term.within is not None and attribution(term, label) == "event":
        path = ("terms", reference, "within")
        what = f"label '{label.name}' is about the play or impression itself, so its own 'window' counts"
        yield problem(place_of(checked, path), path, what, "Leave 'within' out, or say 'attribute: same_title'.")


def check_rewarded_heads(index: DefinitionIndex, checked: Checked, model: ModelSpec) -> Iterator[Problem]:
    """Check that a head's reward can weigh its rows, and that no label comes in two versions."""
    labels = {split_reference(head.label)[0]: head.label for head in model.heads.values() if head.label is not None}
    rewards: dict[str, str] = {}
    for name, head in model.heads.items():
        found = index.find("Reward", head.reward) if head.reward is not None else None
        if found is None or head.reward is None:
            continue
        path: Path = ("heads", name, "reward")
        reward = cast(RewardSpec, found.spec)
        if (wrong := _cannot_weigh(index, head.label) or _gives_no_weight(found, head)) is not None:
            yield problem(place_of(checked, path), path, *wrong)
        if rewards.setdefault(reward.name, head.reward) != head.reward:
            yield problem(place_of(checked, path), path, f"two versions of reward '{reward.name}' in one model")
        for reference in reward.terms if found.knows("terms") else ():
            label = split_reference(reference)[0]
            if _other_version(index, labels.setdefault(label, reference), reference):
                what = f"reward '{reward.name}' counts '{reference}', another version of that label than this model's"
                yield problem(place_of(checked, path), path, what)


def _cannot_weigh(index: DefinitionIndex, reference: str | None) -> tuple[str, str] | None:
    if reference is None:
        return "a reward weighs labelled examples, and this head has no label", ""
    label = _label(index, reference)
    if label is None or label.events is None or set(label.events.action) & set(REWARDED):
        return None
    actions = ", ".join(label.events.action)
    what = f"label '{label.name}' is of {actions} events, and rewards are about plays and impressions"
    return what, "Weigh a head that learns plays, and make this label a term of the reward."


def _gives_no_weight(reward: Checked, head: HeadSpec) -> tuple[str, str] | None:
    """Say why a reward leaves a ranking head without any example: such a loss weighs by what is above 0."""
    if head.loss == "bce" or not reward.knows("terms"):
        return None
    spec = cast(RewardSpec, reward.spec)
    if any(max(term.weight, term.otherwise) > 0 for term in spec.terms.values()):
        return None
    what = f"no term of reward '{spec.name}' is ever above 0, so a '{head.loss}' loss would learn from nothing"
    return what, "Give what should happen a weight above 0, or use bce."


def unweighted_negatives(index: DefinitionIndex, checked: Checked, model: ModelSpec) -> Iterator[Problem]:
    """Note the bce heads whose zeros a reward gives no weight, so that only positives would teach."""
    for name, head in model.heads.items():
        found = index.find("Reward", head.reward) if head.reward is not None else None
        if found is None or head.loss != "bce" or head.draws or not found.knows("terms"):
            continue
        terms = cast(RewardSpec, found.spec).terms.values()
        if not any(term.otherwise for term in terms):
            path: Path = ("heads", name, "reward")
            what = f"reward '{found.spec.name}' gives what was shown and not played the value 0, hence no weight"
            hint = "Give a term an 'otherwise' below 0, or use softmax."
            yield problem(place_of(checked, path), path, what, hint)


def _other_version(index: DefinitionIndex, one: str, other: str) -> bool:
    first, second = index.find("Label", one), index.find("Label", other)
    return first is not None and second is not None and first.spec.version != second.spec.version


def _label(index: DefinitionIndex, reference: str) -> LabelSpec | None:
    found = index.find("Label", reference)
    if found is None or found.mistaken:
        return None
    return cast(LabelSpec, found.spec)


_RANKED: Path = ("rows_of",)


def check_row_canvas(index: DefinitionIndex, owner: Checked, canvas: CanvasSpec) -> Iterator[Problem]:
    """Check that a canvas of rows repeats nothing of its page, ranks rows of titles, and is judged by rows."""
    if canvas.rows_of is None:
        return
    for key in OF_THE_PAGE:
        if key in canvas.model_fields_set:
            what = f"a canvas of rows has that of '{canvas.rows_of}'"
            yield problem(place_of(owner, (key,), key=True), (key,), what, f"Leave '{key}' out.")
    found = index.find("Canvas", canvas.rows_of)
    if found is not None and cast(CanvasSpec, found.spec).target != "title" and "rows_of" not in owner.absent:
        what = f"canvas '{canvas.rows_of}' ranks rows itself"
        yield problem(place_of(owner, _RANKED), _RANKED, what, "Name a canvas of titles that has rows.")
    label = index.find("Label", canvas.metric)
    if label is not None and "metric" not in owner.absent and (level := cast(LabelSpec, label.spec).level) != "row":
        path: Path = ("metric",)
        what = f"label '{canvas.metric}' is about a {level}, and this canvas ranks rows"
        yield problem(place_of(owner, path), path, what, "Use a label with `level: row`.")


def check_ranked_rows(
    index: DefinitionIndex, owner: Checked, model: ModelSpec, rows: list[Checked]
) -> Iterator[Problem]:
    """Check that a model has the canvas whose rows it ranks, and rows on it."""
    canvas = cast(CanvasSpec, owner.spec)
    if canvas.rows_of is None or "rows_of" in owner.absent:
        return
    place = place_of(owner, _RANKED)
    if canvas.requested_as not in [split_reference(reference)[0] for reference in model.canvases]:
        what = f"model '{model.name}' ranks its rows but has no canvas '{canvas.rows_of}'"
        yield problem(place, _RANKED, what, f"Add '{canvas.requested_as}' to the model's canvases.")
    elif not index.unread_as("Row") and not any(
        split_reference(cast(RowSpec, row.spec).canvas)[0] == canvas.requested_as for row in rows
    ):
        yield problem(place, _RANKED, f"model '{model.name}' has no rows on canvas '{canvas.rows_of}'")


def check_ensemble(index: DefinitionIndex, checked: Checked, ensemble: EnsembleSpec) -> Iterator[Problem]:
    """Check that members serve what is asked of them, and that the base's heads have the terms among the members.

    Models are read as they are written now; a registered version is checked again when the ensemble is trained.
    """
    if checked.knows("name") and ensemble.name in index.written["Model"]:
        what = f"a model is called '{ensemble.name}' too, and their registered versions would be one another's"
        yield problem(place_of(checked, ("name",)), ("name",), what)
    if not checked.knows("members", "base"):
        return
    base = _member_model(index, ensemble.members[ensemble.base])
    if base is None:
        return
    own = [split_reference(reference)[0] for reference in base.canvases]
    for role, member in ensemble.models.items():
        model = _member_model(index, member)
        if model is not None and role != ensemble.base:
            yield from _check_member(checked, role, member, model, own)
    kept = {term for head in base.heads.values() for term in head.terms}
    for role, member in ensemble.terms.items():
        if member.term in ensemble.history_terms and member.term not in kept:
            path: Path = ("members", role, "term")
            what = f"no head of '{base.name}' has the term '{member.term}'"
            yield problem(place_of(checked, path), path, what, f"Terms: {', '.join(sorted(kept)) or 'none'}.")
    yield from _check_ensemble_gates(checked, ensemble, base, own)


def _member_model(index: DefinitionIndex, member: MemberSpec) -> ModelSpec | None:
    found = None if member.name is None else index.find("Model", member.name)
    return None if found is None or not found.knows("canvases", "heads") else cast(ModelSpec, found.spec)


def _check_member(
    checked: Checked, role: str, member: MemberSpec, model: ModelSpec, wanted: list[str]
) -> Iterator[Problem]:
    canvases = [split_reference(reference)[0] for reference in model.canvases]
    if member.canvas is not None:
        if member.canvas not in canvases:
            path: Path = ("members", role, "canvas")
            hint = did_you_mean(member.canvas, canvases, f"Canvases: {', '.join(canvases)}.")
            yield problem(place_of(checked, path), path, f"model '{model.name}' has no canvas '{member.canvas}'", hint)
    elif lacking := [canvas for canvas in wanted if canvas not in canvases]:
        path = ("members", role)
        what = f"model '{model.name}' lacks canvas {', '.join(lacking)}"
        hint = f"Name one that it is asked on instead: {{model: {member.model}, canvas: {canvases[0]}}}."
        yield problem(place_of(checked, path), path, what, hint)


def _check_ensemble_gates(
    checked: Checked, ensemble: EnsembleSpec, base: ModelSpec, canvases: list[str]
) -> Iterator[Problem]:
    for place, gate in enumerate(ensemble.gates):
        for key, value, allowed in (
            ("canvas", gate.canvas, ["all", *canvases]),
            ("slice", gate.slice, [None, *base.evaluate.slices]),
        ):
            if value not in allowed:
                path: Path = ("gates", place, key)
                shown = [item for item in allowed if item]
                hint = did_you_mean(str(value), shown, f"Known: {', '.join(shown)}.")
                yield problem(place_of(checked, path), path, f"'{value}' is not measured", hint)
    if ensemble.guard is not None and ensemble.guard.slice not in base.evaluate.slices:
        path = ("guard", "slice")
        what = f"'{ensemble.guard.slice}' is not measured, so nothing could hold the guard"
        hint = f"Slices of '{base.name}': {', '.join(base.evaluate.slices) or 'none'}."
        yield problem(place_of(checked, path), path, what, hint)
