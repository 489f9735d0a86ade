"""Named protocols, baselines, slices and intervals; refuses comparisons that would mislead."""

from playbill.evaluation.baselines.popularity import build_baseline, tuned_ease
from playbill.evaluation.beside import Beside
from playbill.evaluation.canvases.loaded_version import OpenModel, open_model
from playbill.evaluation.canvases.model import CanvasScorer, canvas_function, evaluate_canvas, evaluate_model
from playbill.evaluation.canvases.synthetic_queries import evaluate_more_like_this, evaluate_search
from playbill.evaluation.cases.boundaries import assert_before_requests
from playbill.evaluation.cases.build import build_case
from playbill.evaluation.cases.case import EvaluationCase
from playbill.evaluation.cases.event_log import EvaluationTables
from playbill.evaluation.cases.score_function import ScoreFunction
from playbill.evaluation.compare import (
    ArmsReport,
    arm_hash,
    assert_comparable,
    assert_not_trained_on,
    assert_one_split,
    compare,
    compare_arms,
)
from playbill.evaluation.evaluate import Replay, evaluate, evaluate_case
from playbill.evaluation.leakage_checks import (
    LeakageCheck,
    alarms,
    check_chance,
    check_features,
    check_future,
    check_leakage,
    check_views,
)
from playbill.evaluation.metric_aggregation import Judging
from playbill.evaluation.rendering.grids import arm_tables, ladder, tables
from playbill.evaluation.rendering.html import html_report, write_html
from playbill.evaluation.rendering.plots import plots
from playbill.evaluation.report import Difference, EvaluationReport, SliceRow
from playbill.evaluation.row_figures import RowFigure, evaluate_row

__all__ = [
    "ArmsReport",
    "Beside",
    "CanvasScorer",
    "Difference",
    "EvaluationCase",
    "EvaluationReport",
    "EvaluationTables",
    "Judging",
    "LeakageCheck",
    "OpenModel",
    "Replay",
    "RowFigure",
    "ScoreFunction",
    "SliceRow",
    "alarms",
    "arm_hash",
    "arm_tables",
    "assert_before_requests",
    "assert_comparable",
    "assert_not_trained_on",
    "assert_one_split",
    "build_baseline",
    "build_case",
    "canvas_function",
    "check_chance",
    "check_features",
    "check_future",
    "check_leakage",
    "check_views",
    "compare",
    "compare_arms",
    "evaluate",
    "evaluate_canvas",
    "evaluate_case",
    "evaluate_model",
    "evaluate_more_like_this",
    "evaluate_row",
    "evaluate_search",
    "html_report",
    "ladder",
    "open_model",
    "plots",
    "tables",
    "tuned_ease",
    "write_html",
]
