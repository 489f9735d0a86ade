"""What rewards say about labels, and heads about rewards: mistakes and notes that show only across files."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import cast

from playbill.definitions.specs import HeadSpec, LabelSpec, ModelSpec, RewardSpec, split_reference
from playbill.definitions.specs.base import format_duration
from playbill.definitions.specs.reward import REWARDED, TermSpec
from playbill.definitions.specs.reward_terms import attribution, matures_after
from playbill.definitions.zoo.parsing import Checked, Shelf, place_of
from playbill.definitions.zoo.yaml_tree import problem
from playbill.errors import Problem

Path = tuple[str | int, ...]


def check_reward(shelf: Shelf, checked: Checked, reward: RewardSpec) -> Iterator[Problem]:
    """Check a reward's terms against the labels they name; unknown labels are reported elsewhere."""
    if not checked.knows("terms"):
        return
    seen: dict[str, str] = {}
    for reference, term in reward.terms.items():
        name = split_reference(reference)[0]
        if seen.setdefault(name, reference) != reference:
            path: Path = ("terms", reference)
            yield problem(place_of(checked, path, key=True), path, f"label '{name}' is a term twice")
        label = _label(shelf, reference)
        if label is not None:
            yield from _check_term(checked, reference, term, label)
    yield from _late_terms(shelf, checked, reward)
    for index, reference in enumerate(reward.delayed if checked.knows("delayed") else ()):
        label = _label(shelf, reference)
        if label is not None and matures_after(reward.terms[reference], label, "play") == timedelta(0):
            path = ("delayed", index)
            what = f"label '{label.name}' has no window, so nothing of it is ever too young to predict"
            hint = "Give the label a 'window', the term a 'within', or leave it out of 'delayed'."
            yield problem(place_of(checked, path), path, what, hint)


def _late_terms(shelf: Shelf, checked: Checked, reward: RewardSpec) -> Iterator[Problem]:
    """Yield the terms that are final later than the reward says it is."""
    if reward.matures_after is None or not checked.knows("matures_after"):
        return
    for reference, term in reward.terms.items():
        label = _label(shelf, reference)
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


def check_rewarded_heads(shelf: Shelf, checked: Checked, model: ModelSpec) -> Iterator[Problem]:
    """Check that a head's reward can weigh its rows, and that no label comes in two versions."""
    labels = {split_reference(head.label)[0]: head.label for head in model.heads.values() if head.label is not None}
    rewards: dict[str, str] = {}
    for name, head in model.heads.items():
        found = shelf.find("Reward", head.reward) if head.reward is not None else None
        if found is None or head.reward is None:
            continue
        path: Path = ("heads", name, "reward")
        reward = cast(RewardSpec, found.spec)
        if (wrong := _cannot_weigh(shelf, head.label) or _gives_no_weight(found, head)) is not None:
            yield problem(place_of(checked, path), path, *wrong)
        if rewards.setdefault(reward.name, head.reward) != head.reward:
            yield problem(place_of(checked, path), path, f"two versions of reward '{reward.name}' in one model")
        for reference in reward.terms if found.knows("terms") else ():
            label = split_reference(reference)[0]
            if _other_version(shelf, labels.setdefault(label, reference), reference):
                what = f"reward '{reward.name}' counts '{reference}', another version of that label than this model's"
                yield problem(place_of(checked, path), path, what)


def _cannot_weigh(shelf: Shelf, reference: str | None) -> tuple[str, str] | None:
    if reference is None:
        return "a reward weighs labelled examples, and this head has no label", ""
    label = _label(shelf, reference)
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


def unweighted_negatives(shelf: Shelf, checked: Checked, model: ModelSpec) -> Iterator[Problem]:
    """Note the bce heads whose zeros a reward gives no weight, so that only positives would teach."""
    for name, head in model.heads.items():
        found = shelf.find("Reward", head.reward) if head.reward is not None else None
        if found is None or head.loss != "bce" or head.draws or not found.knows("terms"):
            continue
        terms = cast(RewardSpec, found.spec).terms.values()
        if not any(term.otherwise for term in terms):
            path: Path = ("heads", name, "reward")
            what = f"reward '{found.spec.name}' gives what was shown and not played the value 0, hence no weight"
            hint = "Give a term an 'otherwise' below 0, or use softmax."
            yield problem(place_of(checked, path), path, what, hint)


def _other_version(shelf: Shelf, one: str, other: str) -> bool:
    first, second = shelf.find("Label", one), shelf.find("Label", other)
    return first is not None and second is not None and first.spec.version != second.spec.version


def _label(shelf: Shelf, reference: str) -> LabelSpec | None:
    found = shelf.find("Label", reference)
    if found is None or found.mistaken:
        return None
    return cast(LabelSpec, found.spec)
