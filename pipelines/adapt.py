"""Models of countries, side by side, and the ensemble that learns which of them to trust where.

    python pipelines/adapt.py run --ensemble everywhere
    python pipelines/adapt.py run --ensemble everywhere --max-workers 2

The ensemble's definition says which countries a model is for; such a model is trained from the version that its
`init_from` names. Run again over the same data and members, it trains nothing and ends with the version that is there.
"""

from __future__ import annotations

from project_flow import (
    Parameter,
    PrintedStages,
    ProjectFlow,
    card,
    one_error,
    retry,
    run,
    show_evaluation,
    show_figure,
    show_table,
    show_text,
    step,
)
from version_gates import ensemble_definition, hold_gates


class Adapt(ProjectFlow):
    """Train a model for each country of an ensemble, learn the ensemble over them, and hold its gates and guard."""

    ensemble = Parameter("ensemble", required=True, help="Ensemble of the zoo.")

    @one_error
    @retry(times=2)
    @step
    def start(self) -> None:
        """Find the models that the ensemble has for countries."""
        from playbill.errors import StateError

        members = ensemble_definition(self.project, self.ensemble).models.values()
        self.models = sorted({member.name for member in members if member.countries})
        if not self.models:
            raise StateError(f"ensemble '{self.ensemble}' has no model of which it says for which 'countries' it is")
        self.next(self.country, foreach="models")

    @one_error
    @card(type="blank")
    @retry(times=2)
    @step
    def country(self) -> None:
        """Train the model of one country, or of a few; one that was trained on the same before is found."""
        from playbill.training.run import train_once

        version, outcome = train_once(self.project.workspace, self.input, watcher=PrintedStages())
        self.reference = f"{self.input}:{version}"
        show_text(f"{self.reference}" + ("" if outcome else ", which was trained on the same before"))
        if outcome is not None:
            show_evaluation(outcome.evaluation)
        self.next(self.join)

    @one_error
    @card(type="blank")
    @retry(times=2)
    @step
    def join(self, inputs: list[Adapt]) -> None:
        """Fold the models into one network, and learn on a later window whom to trust where."""
        from playbill.continual.ensembles.ensemble_report import weights_figure
        from playbill.continual.ensembles.members import UnchangedEnsemble

        show_table("Models of countries", ("version",), [[one.reference] for one in inputs])
        outcome = self.project.ensemble(self.ensemble, progress=PrintedStages())
        self.version = outcome.version
        if isinstance(outcome, UnchangedEnsemble):
            show_text(f"nothing to do: {outcome.reason}")
        else:
            spec = ensemble_definition(self.project, self.ensemble)
            for canvas in outcome.gate.weights["canvas"].unique(maintain_order=True):
                show_figure(weights_figure(outcome.gate.weights, canvas, spec), f"{canvas}: whom to trust where")
            show_text("\n".join(f"- {note}" for note in outcome.notes))
            show_evaluation(outcome.evaluation)
        self.next(self.end)

    @one_error
    @card(type="blank")
    @retry(times=2)
    @step
    def end(self) -> None:
        """Hold the gates, of which the guard is one: no country may lose more than it allows."""
        self.outcome = hold_gates(self.project, f"{self.ensemble}:{self.version}")


if __name__ == "__main__":
    run(Adapt)
