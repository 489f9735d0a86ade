"""An adapted version on its way into the registry: one bundle with the weights of all countries, and its record."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path

import numpy as np
import polars as pl

from playbill.config import Workspace
from playbill.continual.countries.country_table import AdaptOptions, AlreadyAdapted
from playbill.datasets import Split
from playbill.definitions.specs import ResolvedModel, reward_versions
from playbill.evaluation.canvases.loaded_version import SPLIT
from playbill.evaluation.canvases.model import ModelEvaluation
from playbill.models import Network
from playbill.ranking.scoring.bundle import VECTORS, write_bundle
from playbill.tables import Tables
from playbill.training.inherit import Parent
from playbill.training.recording import about_version, learnt_labels, log_evaluation, log_lineage, quality, run_name
from playbill.training.start import parent_record
from playbill.versions.promotion.descriptions import describe_version
from playbill.versions.tracking import Lineage, Tracking
from playbill.versions.tracking.registry import PREFIX, git_revision

BUNDLE, FEATURE_VIEWS, ADAPTED = "bundle", "feature_views", "adapted"
OPTIONS = f"{PREFIX}adapt_options"  # tag of a version: digest of the options that it was adapted with


def options_digest(options: AdaptOptions) -> str:
    """Return a digest of what countries learn by; how many learn side by side changes nothing."""
    named = None if options.countries is None else sorted(set(options.countries))
    given = {"countries": named, "arm": options.arm, "rank": options.rank, "settings": asdict(options.settings)}
    return hashlib.sha256(json.dumps(given, sort_keys=True).encode()).hexdigest()[:12]


def already_adapted(tracking: Tracking, parent: Parent, snapshot: str, options: AdaptOptions) -> AlreadyAdapted | None:
    """Return the newest version that came of the same version, data and options; None where there is none."""
    wanted = {
        f"{PREFIX}parent_digest": parent.digest,
        f"{PREFIX}data_snapshot": snapshot,
        OPTIONS: options_digest(options),
    }
    model = parent.bundle.resolved.model.name
    for one in tracking.versions(model):
        # A run describes its version last, so one without a description is what a killed run left.
        if one.description and wanted.items() <= one.tags.items():
            return AlreadyAdapted(model, parent.reference, one.version)
    return None


@dataclass(frozen=True)
class AdaptedVersion:
    """A network with weights of countries, and what it came from."""

    workspace: Workspace
    tracking: Tracking
    parent: Parent
    split: Split
    resolved: ResolvedModel
    network: Network
    countries: tuple[str, ...]  # with weights of their own
    options: AdaptOptions

    def register(self, tables: Tables, watermark: datetime, evaluation: ModelEvaluation, table: pl.DataFrame) -> int:
        """Write the bundle, record it in a run, and return its version.

        Raises:
            ServiceError: MLflow cannot be reached; nothing is registered then.
        """
        model, main = self.resolved.model.name, self.resolved.main_canvas
        given = (self.parent.digest, self.resolved.spec_hash, options_digest(self.options), json.dumps(self.countries))
        name = hashlib.sha256("\n".join(given).encode()).hexdigest()[:12]
        folder = self.workspace.runs / f"{model}-adapt-{name}"
        self._write(folder / BUNDLE)
        lineage = self._lineage(tables, watermark)
        params = {"parent": self.parent.reference, "arm": self.options.arm, "countries": list(self.countries)}
        command = f"playbill adapt {self.parent.reference} --arm {self.options.arm}"
        title = run_name(model, self.split, folder.name)
        with self.tracking.start_run(model, title, lineage.tags(), params, command=command) as run:
            log_lineage(run, lineage)
            run.log_table(table, "countries")
            log_evaluation(run, evaluation, self.split)
            tags = lineage.tags() | {OPTIONS: options_digest(self.options)}
            version = self.tracking.register(run, folder / BUNDLE, model, tags)
            own = f"Weights of their own beside {self.parent.reference}: {', '.join(self.countries)}."
            about = [own, *about_version(self.resolved, lineage, self.workspace.name, run)]
            describe_version(self.tracking, model, version, quality(evaluation, main), about)
        return version

    def _write(self, folder: Path) -> None:
        bundle = self.parent.bundle
        extra = {name: value for name, value in bundle.extra.items() if name != "parent"}
        write_bundle(
            folder,
            resolved=self.resolved,
            encoder=bundle.encoder,
            config=self.network.config,
            weights=self.network.state_dict(),
            plays=np.concatenate([[0.0], bundle.titles["plays"].to_numpy()]).astype(np.float32),
            extra=extra | parent_record(self.parent) | {ADAPTED: list(self.countries)},
        )
        self.split.save(folder / SPLIT)

    def _lineage(self, tables: Tables, watermark: datetime) -> Lineage:
        bundle = self.parent.bundle
        return Lineage(
            spec_hash=self.resolved.spec_hash,
            data_snapshot=tables.snapshot_id(),
            feature_service=bundle.encoder.state.service,
            feature_service_version=bundle.encoder.state.service_version,
            protocol=self.split.protocol,
            protocol_reason=self.split.reason,
            split_digest=self.split.digest,
            watermark=watermark,
            labels=learnt_labels(self.resolved),
            rewards=reward_versions(self.resolved),
            git_revision=git_revision(self.workspace.project.root),
            parent_version=self.parent.reference,
            parent_digest=self.parent.digest,
            feature_views=bundle.extra.get(FEATURE_VIEWS, {}),
            vectors=bundle.extra.get(VECTORS, {}),
        )
