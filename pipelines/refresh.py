"""What arrived since the champion was trained: taken in, learnt from, and held against the gates.

    python pipelines/refresh.py run
    python pipelines/refresh.py run --events new.parquet --mapping shop.yaml

Without new events it ends with a line that says that there was nothing to do. Killed and resumed it ends the same.
"""

from __future__ import annotations

from pathlib import Path

from project_flow import (
    Parameter,
    PrintedStages,
    ProjectFlow,
    card,
    one_error,
    retry,
    run,
    show_gates,
    show_table,
    show_text,
    step,
)


class Refresh(ProjectFlow):
    """Take in new events, bring features up to date, train the champion on, and hold the gates."""

    events = Parameter("events", default="", help="File of new events (default: those that were sent to the server).")
    mapping = Parameter("mapping", default="", help="YAML file: which column of it feeds which canonical one.")

    @one_error
    @card(type="blank")
    @retry(times=2)
    @step
    def start(self) -> None:
        """Append new events to the log, those that wait in the journal too. Events that are there stay as they are."""
        events, mapping = (Path(file) if file else None for file in (self.events, self.mapping))
        pushed = self.project.push(events, mapping=mapping, compact=True).to_dict()
        names = ("accepted", "late", "compacted", "set_aside")
        show_table("Events", names, [[pushed[name] for name in names]])
        self.next(self.features)

    @one_error
    @card(type="blank")
    @retry(times=2)
    @step
    def features(self) -> None:
        """Compute the feature values that changed, and load them into the online store."""
        built = self.project.build_features(progress=PrintedStages())
        self.project.materialize()
        rows = [(view.view, view.how, view.written, f"{view.seconds:.1f}") for view in built.views]
        show_table(f"Features until {built.until}", ("view", "how", "rows written", "seconds"), rows)
        self.next(self.update)

    @one_error
    @card(type="blank")
    @retry(times=2)
    @step
    def update(self) -> None:
        """Train the champion on, with each event once; a killed attempt goes on with the same events."""
        found = self.project.update(self.model_name, progress=PrintedStages())
        taken = found.taken
        numbers = (taken.events, taken.late_events, taken.replayed, found.new_titles, taken.held_out)
        show_table(
            f"{found.status}: from {found.parent}", ("new", "late", "learnt again", "new titles", "held out"), [numbers]
        )
        show_gates(found.gates)
        show_text("\n".join(f"- {note}" for note in found.notes))
        if found.status == "updated":
            done = f"{self.model_name}:{found.version} goes on from {found.parent} with {taken.events:,} new events"
            self.outcome = f"{done}; {found.reason}"
        else:
            self.outcome = f"nothing to do for {found.parent}: {found.reason}"
        self.next(self.end)

    @step
    def end(self) -> None:
        """Say what came of it."""
        print(self.outcome)


if __name__ == "__main__":
    run(Refresh)
