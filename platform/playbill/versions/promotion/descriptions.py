"""What a model and its versions say of themselves in MLflow: the verdict first, then the numbers behind it.

MLflow shows a description raw in its lists, cut after a few words, so the first sentence holds the verdict. Our text
ends with a line (`LINE`); what a user writes below it stays.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from playbill.metrics import Interval
from playbill.versions.promotion.gates import CHAMPION, GateResult, key_of
from playbill.versions.promotion.pairing import PairedChange, paired_change, spelled_change
from playbill.versions.promotion.records import Decision
from playbill.versions.tracking import ModelVersion, Tracking

LINE = "*Playbill writes above this line and keeps what stands below it.*"
LONGEST = 5_000  # letters that MLflow takes
REFUSED = "Not promoted: "
_OLDER = "**Not promoted.** "
_PARAGRAPH = "\n\n"
_CUT = " ..."


@dataclass(frozen=True, slots=True)
class CanvasQuality:
    """What a version reaches on one canvas."""

    canvas: str
    metric: str  # main metric, such as `ndcg@10`
    value: Interval  # with its interval
    baseline: str | None = None  # the best baseline, None without any
    baseline_value: float | None = None  # its value


def describe_version(
    tracking: Tracking, model: str, number: int, quality: Sequence[CanvasQuality], about: Sequence[str]
) -> None:
    """Write what a new version is worth onto it, and onto the model's page.

    `quality` has the main canvas first; `about` are further paragraphs: its data, what it does without, and links.

    Raises:
        UnknownNameError: There is no such version.
        IntegrityError: Values by request that were kept are missing or were changed.
        ServiceError: MLflow cannot be reached.
    """
    version, champion = tracking.version(model, number), tracking.alias(model, CHAMPION)
    changes = {} if champion in (None, number) else _changes(tracking, version, champion, quality)
    verdict = _verdict(quality[0], champion if champion != number else None, changes) if quality else ""
    own = [verdict, _table(quality, changes, champion), *about]
    tracking.describe(model, number, with_own(version.description, own))
    standing = f"Version {champion} is champion." if champion is not None else "There is no champion yet."
    headline = f"Version {number} is new. {verdict}" if champion != number else verdict
    tracking.describe_model(model, with_own(tracking.description(model), [f"{headline} {standing}", *own[1:]]))


def show_decision(tracking: Tracking, decision: Decision, version: ModelVersion, standing: ModelVersion | None) -> None:
    """Write a promotion, or a refusal with its reason, onto a version and onto the model's page.

    `standing` is the champion that stays after a refusal, None when there is none.
    """
    when, model = f"{decision.at:%Y-%m-%d %H:%M} UTC", decision.model
    own = [part for part in own_part(version.description) if not part.startswith(REFUSED)]
    if decision.verdict == "approved":
        verdict = own[0] if own else ""
        page = [f"Version {version.version} is champion since {when}. {verdict}".rstrip(), *own[1:]]
    else:
        text = refusal(decision, standing.version if standing else None)
        stays = f"Version {standing.version} stays champion." if standing else "There is no champion."
        page = [f"Version {version.version} was refused, {when}: {text} {stays}"]
        page += own_part(standing.description) if standing else []
        own = [REFUSED + text, *own]
    changed = with_own(version.description, own)
    if changed != version.description:
        tracking.describe(model, version.version, changed)
    tracking.describe_model(model, with_own(tracking.description(model), page))


def refusal(decision: Decision, champion: int | None) -> str:
    """Say in plain words why a version was refused: the number, what it was held against, and how sure that is."""
    failed = [gate for gate in decision.gates if not gate.passed]
    return " ".join(_sentence(gate, champion) for gate in failed) or f"{decision.reason}."


def own_part(description: str) -> list[str]:
    """Return the paragraphs that Playbill wrote."""
    ours, line, _ = description.partition(LINE)
    return [part for part in ours.split(_PARAGRAPH) if part.strip()] if line else []


def with_own(description: str, paragraphs: Sequence[str]) -> str:
    """Return a description with other paragraphs of ours above the user's own text."""
    before, line, after = description.partition(LINE)
    users = after if line else _PARAGRAPH.join(part for part in before.split(_PARAGRAPH) if not part.startswith(_OLDER))
    ours, users = _PARAGRAPH.join(part for part in paragraphs if part), users.strip()
    if not ours:
        return users
    ending = f"{_PARAGRAPH}{LINE}" + (f"{_PARAGRAPH}{users}" if users else "")
    room = max(0, LONGEST - len(ending))
    return (ours if len(ours) <= room else ours[: max(0, room - len(_CUT))] + _CUT) + ending


def _sentence(gate: GateResult, champion: int | None) -> str:
    if gate.value is None or gate.reference is None:
        return f"{gate.gate}: {gate.reason}."
    canvas, metric, group = (*gate.metric.split("/", 2), "")[:3]
    _, _, rest = gate.gate.partition(" against ")
    against, _, allowed = rest.partition(", ")
    whose = f"the champion (version {champion})" if against == CHAMPION and champion is not None else against
    where = f"{metric} on {canvas}" + (f", {group}" if group else "")
    change = _spelled(gate)
    limit = f"the gate allows {allowed}" if not allowed.startswith("+") else f"the gate asks for {allowed}"
    return f"{where} is {gate.value:.4f} against {gate.reference:.4f} of {whose}{change}; {limit}."


def _spelled(gate: GateResult) -> str:
    if gate.change is not None:
        noise = ", inside the noise" if gate.noise else ""
        return f": {spelled_change(Interval(*gate.change), gate.members or 0)}{noise}"
    assert gate.value is not None
    assert gate.reference is not None
    return f": {100 * (gate.value - gate.reference) / abs(gate.reference):+.1f} %" if gate.reference else ""


def _changes(
    tracking: Tracking, version: ModelVersion, champion: int | None, quality: Sequence[CanvasQuality]
) -> dict[str, PairedChange]:
    assert champion is not None
    ours, theirs = tracking.evaluations(version), tracking.evaluations(tracking.version(version.model, champion))
    pairs = [(own, other) for own in ours for other in theirs if key_of(own) == key_of(other) and own.split_digest]
    found: dict[str, PairedChange] = {}
    for row in quality:
        changes = (paired_change((row.canvas, row.metric, ""), own, other, 0.0) for own, other in pairs)
        change = next((change for change in changes if change is not None), None)
        if change is not None:
            found[row.canvas] = change
    return found


def _verdict(main: CanvasQuality, champion: int | None, changes: Mapping[str, PairedChange]) -> str:
    change = changes.get(main.canvas)
    if change is not None:
        noise = change.relative.includes_zero
        word = "No clear difference to" if noise else "Better than" if change.relative.value > 0 else "Worse than"
        text = spelled_change(change.relative, change.members)
        ending = ", inside the noise" if noise else ""
        return f"{word} version {champion} on {main.canvas}: {main.metric} {text}{ending}."
    value = f"{main.canvas} {main.metric} {main.value.value:.4f} [{main.value.low:.4f}, {main.value.high:.4f}]"
    if main.baseline is not None:
        value += f", best baseline {main.baseline} {main.baseline_value:.4f}"
    if champion is None:
        return f"{value[0].upper()}{value[1:]}."
    return f"Not comparable with version {champion}, which was measured on other requests: {value}."


def _table(quality: Sequence[CanvasQuality], changes: Mapping[str, PairedChange], champion: int | None) -> str:
    against = f" against version {champion} |" if changes else ""
    rows = [
        f"| canvas | metric | value, 95 % interval | best baseline |{against}",
        "|---" * (5 if changes else 4) + "|",
    ]
    for row in quality:
        value = f"{row.value.value:.4f} [{row.value.low:.4f}, {row.value.high:.4f}]"
        cells = [row.canvas, row.metric, value, _baseline(row)]
        if changes:
            change = changes.get(row.canvas)
            cells.append("" if change is None else spelled_change(change.relative, change.members))
        rows.append(f"| {' | '.join(cells)} |")
    return "\n".join(rows) if quality else ""


def _baseline(row: CanvasQuality) -> str:
    if row.baseline is None or row.baseline_value is None:
        return ""
    text = f"{row.baseline} {row.baseline_value:.4f}"
    return f"**{text}**" if row.baseline_value >= row.value.value else text
