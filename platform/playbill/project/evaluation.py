"""Registered versions, measured under a named protocol, compared, and recorded in MLflow."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple, TypedDict

import polars as pl
from pydantic_core import PydanticCustomError

from playbill.config import Workspace
from playbill.datasets import Split
from playbill.datasets.splits import PROTOCOLS
from playbill.definitions.specs import BASELINES
from playbill.definitions.specs.base import parse_duration
from playbill.errors import ConfigError, IntegrityError, UnknownNameError
from playbill.evaluation import (
    ArmsReport,
    CanvasScorer,
    EvaluationReport,
    EvaluationTables,
    Judging,
    LeakageCheck,
    OpenModel,
    Replay,
    RowFigure,
    alarms,
    arm_hash,
    assert_one_split,
    build_case,
    canvas_function,
    check_leakage,
    check_views,
    compare_arms,
    evaluate_canvas,
    evaluate_row,
    html_report,
    open_model,
    plots,
    write_html,
)
from playbill.evaluation.canvases.row_orders import RowFunction
from playbill.evaluation.cases.score_function import ScoreFunction
from playbill.evaluation.cases.slices import MADE_SLICES, SLICES
from playbill.evaluation.ceiling import KnownTruth, truth_of
from playbill.evaluation.evaluate import REPLAY
from playbill.evaluation.measure import Progress
from playbill.evaluation.row_figures import NO_REPLAY
from playbill.features import FeatureDoor, other_files
from playbill.files import write_text
from playbill.tables import Tables
from playbill.training.recording import log_numbers, log_report, run_title
from playbill.training.watch import ProgressListener, Silent
from playbill.versions.tracking import ModelVersion, Tracking
from playbill.versions.tracking.registry import MEASURED_ON_OTHERS, OTHER_FILES, SPLIT_DIGEST


@dataclass(frozen=True)
class EvaluationOptions:
    """What is measured, against what, and whether it is recorded.

    Args:
        protocol: Named protocol; None = the one each version was trained under.
        canvas: Canvas to ask; None = home, or the model's first one; of a row, its own.
        row: Row to measure instead of the whole canvas.
        label: What that row is judged by; None = what its blend is for.
        baselines: Registered baselines; None = the model's.
        slices: Slices; None = the model's. Named here, each must have a group that is large enough.
        minimum_members: Members a group needs; None = as the model says.
        window: Of a replay, such as `7d`; None = a day.
        leakage_checks: Run the leakage checks too.
        log: Record the evaluation in MLflow.
    """

    protocol: str | None = None
    canvas: str | None = None
    row: str | None = None
    label: str | None = None
    baselines: tuple[str, ...] | None = None
    slices: tuple[str, ...] | None = None
    minimum_members: int | None = None
    window: str | None = None
    leakage_checks: bool = False
    log: bool = True


@dataclass(frozen=True)
class MeasuredVersion:
    """One version, measured.

    Args:
        version: Which.
        arm: Hash of its definition without the training seed.
        report: What was found.
        leakage_checks: Those that were run.
        run_id: MLflow run that records it; None when it was not logged.
    """

    version: ModelVersion
    arm: str
    report: EvaluationReport
    leakage_checks: tuple[LeakageCheck, ...]
    run_id: str | None


@dataclass(frozen=True)
class EvaluationResult:
    """Versions that were measured together.

    Args:
        versions: One for each reference, in order.
        arms: The versions compared, those that differ only in their training seed as one arm; None of a single version.
    """

    versions: tuple[MeasuredVersion, ...]
    arms: ArmsReport | None

    @property
    def report(self) -> EvaluationReport:
        """The first version's report."""
        return self.versions[0].report

    @property
    def alarms(self) -> tuple[str, ...]:
        """What the leakage checks found to read the future or the targets; empty when none was run."""
        return tuple(message for one in self.versions for message in alarms(one.leakage_checks))

    def to_polars(self) -> pl.DataFrame:
        """Return a row for each version's canvas, model or baseline, and metric: `value`, `low` and `high`."""
        frames = [
            one.report.to_polars().insert_column(0, pl.lit(one.version.reference).alias("version"))
            for one in self.versions
        ]
        return pl.concat(frames)

    def require_no_leaks(self) -> None:
        """Fail when a leakage check raised the alarm.

        Raises:
            IntegrityError: Something reads the future or the targets; all of it is named.
        """
        if self.alarms:
            raise IntegrityError("\n  ".join(["the numbers cannot be trusted", *self.alarms]))


def evaluate_versions(
    workspace: Workspace,
    references: Sequence[str],
    options: EvaluationOptions | None = None,
    progress: ProgressListener | None = None,
) -> EvaluationResult:
    """Fetch versions, measure each, record it, and compare them.

    Args:
        workspace: Whose.
        references: `model@champion`, `model:3`, or `model` for its newest version.
        options: What is measured.
        progress: Hears of progress.

    Raises:
        UnknownNameError: No such version, protocol, canvas, baseline or slice.
        ConfigError: The window is no duration, or a version is named twice.
        ComparisonError: A version was trained on what the protocol holds out, or two hold out different rows.
        StateError: A slice asked for has too few members.
    """
    options, progress = options or EvaluationOptions(), progress or Silent()
    replay = _replay(options)
    _check_names(options)
    _check_row(options)
    progress.stage("read tables")
    frames = EvaluationTables.read(Tables(workspace))
    tracking, door = Tracking(workspace), FeatureDoor(workspace)
    versions = [tracking.resolve(reference) for reference in references]
    if len({version.reference for version in versions}) < len(versions):
        raise ConfigError(f"a version is named twice: {', '.join(version.reference for version in versions)}")
    opened = [_open(progress, tracking, version, frames, door, options) for version in versions]
    assert_one_split({one.version.reference: one.split for one in opened})
    measurement = _Measurement(tracking, door, frames, truth_of(workspace.folder), replay, options, progress)
    measured = tuple(measurement.of(one, named=len(versions) > 1) for one in opened)
    return EvaluationResult(measured, _arms(measured) if len(measured) > 1 else None)


class _Opened(NamedTuple):
    """A version with what it is going to be measured on: a canvas, or one of its rows."""

    version: ModelVersion
    model: OpenModel
    split: Split
    canvas: str
    row: RowFigure | None


class MeasureOptions(TypedDict):
    """What a canvas and a row are measured with."""

    baselines: tuple[str, ...] | None
    judging: Judging
    name: str | None
    progress: Progress


@dataclass(frozen=True)
class _Measurement:
    """What all versions are measured with."""

    tracking: Tracking
    door: FeatureDoor
    frames: EvaluationTables
    truth: KnownTruth | None
    replay: Replay
    options: EvaluationOptions
    progress: ProgressListener

    def of(self, opened: _Opened, *, named: bool) -> MeasuredVersion:
        """Measure one version, `named` by its reference where there are others, and record it."""
        version, model, split, canvas, row = opened
        door, options, frames, service = self.door, self.options, self.frames, model.resolved.model.features
        self.progress.stage(f"evaluate {version.reference} on {canvas if row is None else f'row {row.name}'}")
        function = canvas_function(model.scorer, model.resolved, canvas, door)
        how: MeasureOptions = {
            "baselines": options.baselines,
            "judging": _judging(model, options),
            "name": version.reference if named else None,
            "progress": self.progress.advance,
        }
        about = (split, frames, model.resolved)
        if row is not None:
            report = evaluate_row(row, model.scorer, *about, door, **how)
        else:
            report = evaluate_canvas(function, *about, canvas, replay=self.replay, truth=self.truth, **how)
        others = other_files(model.feature_files, door.file_digests(service))
        if others:
            report = replace(report, notes=(*report.notes, f"{MEASURED_ON_OTHERS}: {', '.join(others)}"))
        checks = _leakage_checks(self.progress, function, model, split, frames, report, options)
        if options.leakage_checks:
            checks += check_views(door.leaks(service))
        run_id = _log(self.tracking, version, split, report, others) if options.log and row is None else None
        return MeasuredVersion(version, arm_hash(model.resolved), report, checks, run_id)


def _open(
    progress: ProgressListener,
    tracking: Tracking,
    version: ModelVersion,
    frames: EvaluationTables,
    door: FeatureDoor,
    options: EvaluationOptions,
) -> _Opened:
    progress.stage(f"fetch {version.reference}")
    folder = tracking.download(version.model, version.version)
    known = version.tags.get(SPLIT_DIGEST)
    model = open_model(folder, frames, door, digest=version.digest, split_digest=known)
    row, canvas = None, options.canvas or model.resolved.main_canvas
    if options.row is not None:
        row = RowFigure.of(model.resolved, options.row, canvas=options.canvas, label=options.label)
        canvas = row.row.canvas
    return _Opened(version, model, model.split(options.protocol, frames), canvas, row)


def _arms(versions: Sequence[MeasuredVersion]) -> ArmsReport:
    """Compare versions; those whose definitions differ only in the training seed are one arm."""
    grouped: dict[str, list[MeasuredVersion]] = {}
    for one in versions:
        grouped.setdefault(one.arm, []).append(one)
    named = {", ".join(one.version.reference for one in group): group for group in grouped.values()}
    return compare_arms({name: [one.report for one in group] for name, group in named.items()})


def write_files(result: EvaluationResult, *, plots: str | None, report: str | None, html: str | None) -> list[str]:
    """Write what was asked for, and return a line about each file."""
    versions = result.versions
    lines = [f"recorded in MLflow as run {one.run_id}" for one in versions if one.run_id is not None]
    if plots is not None:
        lines += [f"wrote {file}" for one in versions for file in _plot(one, Path(plots), len(versions) > 1)]
    if report is not None:
        target = Path(report)
        for one in versions:
            own = target if len(versions) == 1 else target.with_stem(f"{target.stem}-{one.version.version}")
            write_text(own, one.report.to_json(), "the report")
            lines.append(f"wrote {own}")
    if html is not None:
        reports = [one.report for one in versions]
        checks = [check for one in versions for check in one.leakage_checks]
        write_html(Path(html), html_report(run_title(reports), reports, arms=result.arms, leakage_checks=checks))
        lines.append(f"wrote {html}")
    return lines


def _plot(one: MeasuredVersion, folder: Path, several: bool) -> list[Path]:
    return plots(one.report, folder / one.version.reference.replace(":", "-") if several else folder)


def _replay(options: EvaluationOptions) -> Replay:
    if options.window is None:
        return Replay()
    if options.protocol != REPLAY:
        raise ConfigError(f"--window is of the protocol '{REPLAY}': add --protocol {REPLAY}, or leave it out")
    try:
        return Replay(parse_duration(options.window))
    except PydanticCustomError as error:
        raise ConfigError(f"--window: {error}") from None


def _check_names(options: EvaluationOptions) -> None:
    """Look names up before anything is read or fetched."""
    if options.protocol is not None and options.protocol not in PROTOCOLS:
        raise UnknownNameError("protocol", options.protocol, PROTOCOLS)
    for name in options.baselines or ():
        BASELINES[name]
    for name in options.slices or ():
        if name not in (*SLICES, *MADE_SLICES):
            raise UnknownNameError("slice", name, SLICES)


def _check_row(options: EvaluationOptions) -> None:
    """Refuse what a row cannot be measured with, before anything is read or fetched."""
    if options.row is None and options.label is not None:
        raise ConfigError("--label is of --row: a canvas is judged by its own 'metric'")
    if options.row is not None and options.leakage_checks:
        raise ConfigError("the leakage checks are about a canvas: leave --row or --leakage-checks out")
    if options.row is not None and options.protocol == REPLAY:
        raise ConfigError(NO_REPLAY)


def _judging(model: OpenModel, options: EvaluationOptions) -> Judging:
    own = model.resolved.model.evaluate
    return Judging(
        slices=own.slices if options.slices is None else options.slices,
        minimum_members=options.minimum_members or own.minimum_members,
        strict=options.slices is not None,
    )


def _leakage_checks(
    progress: ProgressListener,
    function: ScoreFunction | RowFunction,
    model: OpenModel,
    split: Split,
    frames: EvaluationTables,
    report: EvaluationReport,
    options: EvaluationOptions,
) -> tuple[LeakageCheck, ...]:
    if not options.leakage_checks:
        return ()
    if not isinstance(function, CanvasScorer):
        raise ConfigError(f"canvas '{report.canvas}' ranks rows; the leakage checks are about lists of titles")
    progress.stage("try the leakage checks")
    case = build_case(frames, split, model.resolved, report.canvas)
    baselines = {row.name: BASELINES[row.name].load() for row in report.baselines if row.name in BASELINES}
    return check_leakage(case, report.model, lambda _case: function, baselines)


def _log(
    tracking: Tracking, version: ModelVersion, split: Split, report: EvaluationReport, others: Sequence[str]
) -> str:
    """Record an evaluation; gates read it as they read the numbers of the training run."""
    protocol = report.protocol if report.protocol.startswith(split.protocol) else split.protocol
    tags = {OTHER_FILES: ", ".join(others)} if others else {}
    logged = tracking.log_evaluation(version, protocol, split.digest, {}, tags)
    with logged as run, tempfile.TemporaryDirectory() as name:
        log_numbers(run, [report])
        drawn = {report.canvas: log_report(run, report, Path(name) / report.canvas)}
        run.log_text(html_report(run_title([report]), [report], drawn=drawn), "evaluation/report.html")
        return run.run_id
