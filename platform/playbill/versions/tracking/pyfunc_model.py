"""The code of our MLflow models (models-from-code): what `mlflow models serve` runs.

It works from the bundle and a copy of the catalogue, without a workspace. Playbill's own servers never execute it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import mlflow
import pandas as pd


class BundleModel(mlflow.pyfunc.PythonModel):  # type: ignore[misc]
    """Ranks the bundle's titles for requests of any of its canvases."""

    def load_context(self, context: Any) -> None:
        """Read the bundle, digest-checked, and hold its titles and weights in memory."""
        from playbill.versions.tracking.bundle_ranker import BundleRanker

        self.ranker = BundleRanker.load(Path(context.artifacts["bundle"]), Path(context.artifacts["catalogue"]))

    def predict(self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None) -> pd.DataFrame:
        """Rank titles for each request row, best first: title_ids, names and scores.

        Columns are canvas, and where known k, history (title ids, oldest first), query, source_title_id, country and at
        (ISO moment). The context was read at start, and no params are taken.
        """
        rows: list[dict[str, Any]] = model_input.to_dict("records")  # type: ignore[assignment]
        answers = self.ranker.rank(rows)
        return pd.DataFrame(answers, columns=["title_ids", "names", "scores"], index=model_input.index)


mlflow.models.set_model(BundleModel())
