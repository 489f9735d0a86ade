"""A model version under evaluation, read from its bundle: scorer, definition, and the split it was trained on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from playbill.clock import parse_moment
from playbill.datasets import Split, make_split
from playbill.datasets.encoding.titles import TitleFeatures
from playbill.definitions.specs import ResolvedModel
from playbill.errors import DataError, IntegrityError, StateError
from playbill.evaluation.cases.event_log import MOST_PASTS, EvaluationTables
from playbill.evaluation.cases.score_function import MemberFeatures
from playbill.evaluation.compare import assert_not_trained_on
from playbill.ranking.scoring.bundle import FEATURE_FILES, VECTORS, read_bundle
from playbill.ranking.scoring.scorer import Scorer

SPLIT = "split.parquet"  # where training leaves the frozen split in a bundle's folder, beside the files of the manifest


class Features(MemberFeatures, TitleFeatures, Protocol):
    """What is asked of `playbill.features.FeatureDoor`."""

    def require_pinned(self, pins: Mapping[str, Mapping[str, str]], reader: str) -> None:
        """Check that the store holds the published vectors that a model was trained with."""


@dataclass(frozen=True)
class OpenModel:
    """A model version ready to be measured."""

    resolved: ResolvedModel
    scorer: Scorer  # its heads over the titles of the tables
    trained: Split
    digest: str  # of its bundle
    # view -> digests of the feature files it was trained on; empty where that was not recorded
    feature_files: Mapping[str, Sequence[str]] = field(default_factory=dict)

    def split(self, protocol: str | None, tables: EvaluationTables) -> Split:
        """Return the split to measure on: the frozen rows where the protocol holds out the same, else new ones.

        Without a `protocol` it is the one that the model was trained under.

        Raises:
            UnknownNameError: No such protocol.
            ComparisonError: The model was trained on rows that the protocol holds out.
            StateError: The data has changed, and none of the frozen split's test events is left.
        """
        wanted = self.trained if protocol is None else self._frozen(protocol)
        if wanted is None:
            split = make_split(str(protocol), tables.interactions)
            assert_not_trained_on(split, self.trained, model=self.resolved.model.name)
            return split
        if self.trained.events(tables.interactions, "test").is_empty():
            raise StateError(
                f"none of the test events that '{self.resolved.model.name}' was trained apart from is in this "
                "workspace any more; train again on the data that is here now"
            )
        return wanted

    def _frozen(self, protocol: str) -> Split | None:
        """Return the frozen split under a protocol, None where that protocol holds out other rows."""
        try:
            return self.trained.under(protocol)
        except DataError:
            return None


def open_model(
    folder: Path,
    tables: EvaluationTables,
    features: Features | None,
    *,
    digest: str | None = None,
    split_digest: str | None = None,
) -> OpenModel:
    """Read a bundle and make its scorer.

    Titles and their ages are those known at the watermark of its training, so the numbers are those that training
    reported.

    Without `features` every feature is missing. Digests are checked where they are given.

    Raises:
        IntegrityError: The bundle or its split is not what its record says, or the store holds other vectors than the
            model was trained with.
        StateError: The bundle has no split.
    """
    bundle = read_bundle(folder, digest)
    trained = frozen_split(folder)
    if split_digest and trained.digest != split_digest:
        raise IntegrityError(f"{folder / SPLIT} has digest {trained.digest}, its record says {split_digest}")
    if features is not None and bundle.extra.get(VECTORS):
        features.require_pinned(bundle.extra[VECTORS], f"{bundle.resolved.model.name} ({bundle.digest[:12]})")
    watermark = bundle.extra.get("watermark")
    as_of = parse_moment(watermark) if watermark else tables.end
    titles = tables.titles_at(as_of)
    scorer = Scorer(bundle, titles, tables.availability, features, as_of=as_of, kept_states=MOST_PASTS)
    return OpenModel(bundle.resolved, scorer, trained, bundle.digest, bundle.extra.get(FEATURE_FILES, {}))


def frozen_split(folder: Path) -> Split:
    """Read the split that a bundle's model was trained on.

    Raises:
        StateError: It has none, so nothing can be held out from it.
        IntegrityError: It is damaged.
    """
    found = next((path for path in (folder / SPLIT, folder / "split" / SPLIT) if path.is_file()), None)
    if found is None:
        raise StateError(
            f"the bundle has no {SPLIT}, so nobody knows what the model was trained on; train it again with "
            "`playbill train`"
        )
    return Split.load(found)
