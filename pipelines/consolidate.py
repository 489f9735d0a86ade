"""From outside data to a registered version of one model for every canvas, with its gates held.

    python pipelines/consolidate.py run --source movielens_100k
    python pipelines/consolidate.py --help

Run again over the same data and definitions, it trains nothing and ends with the version that is there.
"""

from __future__ import annotations

from project_flow import (
    JSONType,
    Parameter,
    PrintedStages,
    ProjectFlow,
    card,
    one_error,
    retry,
    run,
    show_evaluation,
    show_table,
    show_text,
    step,
)
from version_gates import hold_gates


class Consolidate(ProjectFlow):
    """Ingest, compute features, train, and let the gates decide about the version."""

    source = Parameter(
        "source", default="", help="Where data comes from (default: the workspace's tables as they are)."
    )
    options = Parameter("options", type=JSONType, default="{}", help="Options of the source, as JSON.")

    @one_error
    @card(type="blank")
    @retry(times=2)
    @step
    def start(self) -> None:
        """Replace the workspace's tables by the source's data."""
        if self.source:
            report = self.project.ingest(self.source, **self.options)
            show_table(f"Data of {report.source}: {report.route}", ("table", "rows"), list(report.rows.items()))
            show_text("\n".join(f"- {note}" for note in (report.terms, *report.notes) if note))
        self.next(self.features)

    @one_error
    @card(type="blank")
    @retry(times=2)
    @step
    def features(self) -> None:
        """Register features with Feast, compute their values as of every moment, and load the online store."""
        self.project.apply()
        built = self.project.build_features(progress=PrintedStages())
        self.project.materialize()
        rows = [(view.view, view.how, view.rows, view.written, f"{view.seconds:.1f}") for view in built.views]
        show_table(f"Features until {built.until}", ("view", "how", "rows", "written", "seconds"), rows)
        self.next(self.train)

    @one_error
    @card(type="blank")
    @retry(times=2)
    @step
    def train(self) -> None:
        """Train, measure on every canvas, and register; a killed attempt goes on from its newest checkpoint."""
        from playbill.training.run import train_once

        self.version, outcome = train_once(self.project.workspace, self.model_name, watcher=PrintedStages())
        if outcome is None:
            show_text(f"{self.model_name}:{self.version} was trained before on the same data by the same definition.")
        else:
            show_evaluation(outcome.evaluation)
        self.next(self.end)

    @one_error
    @card(type="blank")
    @retry(times=2)
    @step
    def end(self) -> None:
        """Hold the gates of a version that may become champion without a person."""
        self.outcome = hold_gates(self.project, f"{self.model_name}:{self.version}")


if __name__ == "__main__":
    run(Consolidate)
