"""Named protocols, baselines, slices and intervals; refuses comparisons that would mislead."""

from playbill.evaluation.baselines import build_baseline, tuned_ease
from playbill.evaluation.build import build_case
from playbill.evaluation.bundles import OpenModel, frozen_split, open_model
from playbill.evaluation.cases import EvaluationCase
from playbill.evaluation.compare import Comparison, assert_comparable, assert_not_trained_on, compare
from playbill.evaluation.data import EvaluationTables
from playbill.evaluation.evaluate import DEFAULT_BASELINES, Judging, evaluate, evaluate_case
from playbill.evaluation.made import evaluate_more_like_this, evaluate_search
from playbill.evaluation.model import CanvasScorer, ModelEvaluation, evaluate_canvas, evaluate_model
from playbill.evaluation.plots import plots
from playbill.evaluation.report import Difference, EvaluationReport, ScoredRow, SliceRow
from playbill.evaluation.scoring import ScoreFunction
from playbill.evaluation.tables import tables

__all__ = [
    "DEFAULT_BASELINES",
    "CanvasScorer",
    "Comparison",
    "Difference",
    "EvaluationCase",
    "EvaluationReport",
    "EvaluationTables",
    "Judging",
    "ModelEvaluation",
    "OpenModel",
    "ScoreFunction",
    "ScoredRow",
    "SliceRow",
    "assert_comparable",
    "assert_not_trained_on",
    "build_baseline",
    "build_case",
    "compare",
    "evaluate",
    "evaluate_canvas",
    "evaluate_case",
    "evaluate_model",
    "evaluate_more_like_this",
    "evaluate_search",
    "frozen_split",
    "open_model",
    "plots",
    "tables",
    "tuned_ease",
]
