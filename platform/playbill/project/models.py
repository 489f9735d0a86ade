"""Methods of a project that train models, measure them, and decide which one is served."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from playbill.config import Workspace
from playbill.errors import ConfigError
from playbill.project.references import definition_reference

if TYPE_CHECKING:
    from playbill.continual.countries.country_table import AdaptOutcome, AlreadyAdapted
    from playbill.continual.diagnosis.diagnosis import Diagnosis
    from playbill.continual.ensembles.ensemble import EnsembleOutcome
    from playbill.continual.ensembles.members import UnchangedEnsemble
    from playbill.continual.incremental.update import UpdateOutcome
    from playbill.foundation import PretrainOutcome
    from playbill.project.evaluation import EvaluationResult
    from playbill.training.run import TrainOutcome
    from playbill.training.watch import ProgressListener
    from playbill.versions.promotion import Promotion


class ModelMethods:
    """From a definition of the zoo to a registered version, its evaluation and its promotion."""

    workspace: Workspace

    def train(
        self,
        model: str,
        *,
        definition: int | None = None,
        protocol: str | None = None,
        epochs: int | None = None,
        seed: int | None = None,
        workers: int | None = None,
        gpu: bool | None = None,
        sharded: bool | None = None,
        progress: ProgressListener | None = None,
    ) -> TrainOutcome:
        """Train a model, measure it on every canvas beside the baselines, and register it in MLflow.

        A run that was killed is resumed by the same call.

        Args:
            model: Of the zoo, by name.
            definition: Version of its definition (default: the newest).
            protocol: What is held out (default: the definition's, like the two that follow).
            epochs: Passes over the data.
            seed: Of weights, order and dropout.
            workers: 0 trains in this process, N on N Ray workers (default: the project's).
            gpu: Whether to use one (default: when there is one).
            sharded: Whether each worker holds a part of the network instead of all (default: the project's).
            progress: Hears of progress.

        Raises:
            DefinitionError: The zoo has mistakes.
            ConfigError: The model is written as a registered version, the cluster's address cannot be used, or a
                network is to be shared out among fewer than two workers.
            StateError: Data, features or a registry is missing; the text names the command to run first.
            DataError: The label of a head that is not optional has no positive row.
            ServiceError: MLflow, the feature store or the cluster cannot be reached.
        """
        from playbill.training.options import TrainOptions
        from playbill.training.run import train

        reference = definition_reference(model, definition, "train")
        return train(self.workspace, reference, TrainOptions(protocol, epochs, seed, workers, gpu, sharded), progress)

    def update(
        self,
        model: str,
        *,
        workers: int | None = None,
        gpu: bool | None = None,
        sharded: bool | None = None,
        progress: ProgressListener | None = None,
    ) -> UpdateOutcome:
        """Train a model's champion on with the events that came since, and register the result as a candidate.

        With `promote: auto` in its definition it becomes champion where its gates pass. An update that was killed is
        resumed by the same call.

        Args:
            model: By name; it starts from its champion.
            workers: As in `train`, like the three that follow.
            gpu: Whether to use one.
            sharded: Whether each worker holds a part of the network.
            progress: Hears of progress.

        Returns:
            `status`, "updated" or "nothing to do", with the candidate's `version`, what it learnt from, and its gates.

        Raises:
            DefinitionError: The definition or its feature service is not what the champion was trained by.
            StateError: There is no champion, or another process is updating it.
            IntegrityError: The champion's files are damaged.
            ServiceError: MLflow, the database, the feature store or the cluster cannot be reached.

        Example:
            >>> project.update("everycanvas").status
            'nothing to do'
        """
        from playbill.continual.incremental.update import update
        from playbill.training.options import TrainOptions

        name = definition_reference(model, None, "update")
        return update(self.workspace, name, TrainOptions(workers=workers, gpu=gpu, sharded=sharded), progress)

    def pretrain(
        self,
        model: str = "foundation",
        *,
        members: int | None = None,
        again: bool = False,
        progress: ProgressListener | None = None,
        **options: Any,
    ) -> PretrainOutcome:
        """Train a foundation model, register it, and publish its vectors; what the same run did before is not repeated.

        Args:
            model: Of the zoo, by name.
            members: Publish vectors of so many, those active last (default: all).
            again: Train anew, also where the same run has finished.
            progress: Hears of progress.
            options: `definition` to `sharded` of `train`, which raises the same.
        """
        from playbill.foundation import VectorOptions, pretrain
        from playbill.training.options import TrainOptions

        reference = definition_reference(model, options.pop("definition", None), "pretrain")
        given, vectors = TrainOptions(**options), VectorOptions(members=members)
        return pretrain(self.workspace, reference, given, vectors, progress, again=again)

    def ensemble(
        self,
        name: str,
        *,
        definition: int | None = None,
        again: bool = False,
        progress: ProgressListener | None = None,
    ) -> EnsembleOutcome | UnchangedEnsemble:
        """Fold the members of an ensemble into one network, learn its gate, measure it, and register it in MLflow.

        Where a version was learnt from the same definition, members and data before, there is nothing to do, and it is
        returned with the `reason`.

        Args:
            name: Of the zoo's ensemble.
            definition: Version of its definition (default: the newest).
            again: Learn it anew, also where nothing has changed.
            progress: Hears of progress.

        Raises:
            DefinitionError: The zoo has mistakes, or members cannot stand beside one another; all are named.
            UnknownNameError: There is no such ensemble.
            StateError: The window after the members' training is empty, or data or a registry is missing.
            ServiceError: MLflow or the feature store cannot be reached.

        Example:
            >>> project.ensemble("everywhere").version
        """
        from playbill.continual.ensembles.ensemble import train_ensemble

        reference = definition_reference(name, definition, "ensemble")
        return train_ensemble(self.workspace, reference, progress, again=again)

    def adapt(
        self,
        model: str,
        *,
        countries: Sequence[str] | None = None,
        arm: str = "low_rank",
        rank: int | None = None,
        workers: int | None = None,
        again: bool = False,
        progress: ProgressListener | None = None,
    ) -> AdaptOutcome | AlreadyAdapted:
        """Give countries weights of their own beside a version, where that is ahead, and register the result.

        Where a version came of the same version, data and options before, there is nothing to do, and it is returned
        with the `reason`.

        Args:
            model: `everycanvas` for its champion, or `everycanvas:3`.
            countries: Which ones (default: all that the version knows).
            arm: `low_rank`, or `fine_tune` for a whole projection of each country.
            rank: Of the weights of `low_rank` (default: 4).
            workers: Countries side by side on Ray; 0 = in this process (default: the project's).
            again: Learn anew, also where nothing has changed.
            progress: Hears of progress.

        Raises:
            UnknownNameError: No such model, alias, version or arm.
            ConfigError: The version does not read countries, or bends to them in another way.
            DataError: Countries are named that are unknown, or have no member; all of them are in the text.
            StateError: The log says of no event where it came from, or no country has members enough.
            ServiceError: MLflow, the feature store or the cluster cannot be reached.

        Example:
            >>> project.adapt("everycanvas", countries=["NO", "SE"]).version
        """
        from playbill.continual.countries.adapt import adapt
        from playbill.continual.countries.country_table import RANK, AdaptOptions

        named = None if countries is None else tuple(countries)
        options = AdaptOptions(countries=named, arm=arm, rank=rank or RANK, workers=workers)
        return adapt(self.workspace, model, options, progress, again=again)

    def evaluate(
        self,
        *references: str,
        protocol: str | None = None,
        canvas: str | None = None,
        row: str | None = None,
        label: str | None = None,
        baselines: Sequence[str] | None = None,
        slices: Sequence[str] | None = None,
        minimum_members: int | None = None,
        window: str | None = None,
        leakage_checks: bool = False,
        log: bool = True,
        progress: ProgressListener | None = None,
    ) -> EvaluationResult:
        """Measure registered versions under a named protocol, and compare them where there are several.

        Args:
            references: `model@champion`, `model:3`, or `model` for its newest version.
            protocol: What is held out (default: what each version was trained under).
            canvas: Canvas to ask (default: home, or the model's first one).
            row: One row instead of the whole canvas.
            label: What that row is judged by (default: the label of its blend's main head).
            baselines: Registered baselines (default: the model's).
            slices: Slices (default: the model's).
            minimum_members: Members that a slice's group needs (default: the model's).
            window: Of the protocol `replay`, such as `7d` (default: a day).
            leakage_checks: Try whether anything reads the future or the targets; see `require_no_leaks` of the result.
            log: Record the evaluation in MLflow.
            progress: Hears of progress.

        Raises:
            UnknownNameError: No such version, protocol, canvas, baseline or slice.
            ConfigError: No version or one twice is named, or options do not go together.
            ComparisonError: A version was trained on what the protocol holds out, or two hold out different rows.
            StateError: A slice asked for has too few members.

        Example:
            >>> project.evaluate("everycanvas@champion", canvas="search").to_polars()
        """
        from playbill.project.evaluation import EvaluationOptions, evaluate_versions

        if not references:
            raise ConfigError("name a version to evaluate, such as model@champion or model:3")
        others, groups = (None if names is None else tuple(names) for names in (baselines, slices))
        options = EvaluationOptions(
            protocol, canvas, row, label, others, groups, minimum_members, window, leakage_checks, log
        )
        return evaluate_versions(self.workspace, references, options, progress)

    def diagnose(
        self,
        reference: str,
        by: str = "country",
        *,
        canvas: str | None = None,
        protocol: str | None = None,
        minimum_members: int | None = None,
        progress: ProgressListener | None = None,
    ) -> Diagnosis:
        """Find the slices in which a registered version does worse than their size lets one expect, and why.

        Args:
            reference: `model@champion`, `model:3`, or `model` for its newest version.
            by: `country`, `tenure`, `language`, `device` or `canvas`, which is the one that an event was logged on.
            canvas: Canvas to ask (default: home, or the model's first one).
            protocol: What is held out (default: what the version was trained under).
            minimum_members: Members that a slice needs for a conclusion (default: the model's).
            progress: Hears of progress.

        Raises:
            UnknownNameError: No such version, protocol, canvas or slice.
            ConfigError: The canvas ranks rows, or the protocol is `replay`.
            ComparisonError: The version was trained on what the protocol holds out.
            StateError: The log does not know the slice or has one only, or nothing is held out for the canvas.

        Example:
            >>> project.diagnose("everycanvas@champion", by="country").to_polars()
        """
        from playbill.continual.diagnosis.diagnose import DiagnoseOptions, diagnose

        options = DiagnoseOptions(by, canvas, protocol, minimum_members)
        return diagnose(self.workspace, reference, options, progress)

    def promote(self, reference: str) -> Promotion:
        """Make a version the champion, if its gates pass.

        Args:
            reference: `model:3`, `model@challenger`, or `model` for its newest version.

        Returns:
            The version, and what was decided about it: `verdict`, `reason` and `gates`.

        Raises:
            UnknownNameError: No such model, alias or version.
            StateError: Another controller did not decide in time.
            ServiceError: MLflow or the database cannot be reached.
        """
        from playbill.versions.promotion import promote

        return promote(self.workspace, reference)

    def rollback(self, model: str) -> Promotion:
        """Put the champion before the present one back. Quality gates are skipped, integrity checks are not.

        Raises:
            StateError: There is no earlier champion; and what `promote` raises.
        """
        from playbill.versions.promotion import rollback

        return rollback(self.workspace, model)
