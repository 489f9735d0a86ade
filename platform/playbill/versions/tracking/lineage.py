"""What a model version was made from, as tags that can be searched in the MLflow UI."""

from __future__ import annotations

import getpass
import subprocess
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from playbill.datasets.splits import REQUESTS

PREFIX = "playbill."
DIGEST = PREFIX + "digest"
PROMOTION = PREFIX + "promotion"
REASON = PREFIX + "promotion_reason"
PROTOCOL = PREFIX + "protocol"
SPLIT_DIGEST = PREFIX + "split_digest"
ASKED_WITH = PREFIX + "requests"
"""Tag with the version of what held-out requests carried when a run was measured, see `datasets.splits.REQUESTS`."""

OTHER_FILES = PREFIX + "other_feature_files"
"""Tag of an evaluation: views that were read from other files than the version was trained on."""
MEASURED_ON_OTHERS = "measured on other feature files than it was trained on"

_GIT_SECONDS = 5


@dataclass(frozen=True, slots=True)
class Lineage:
    """Everything a version can be rebuilt from.

    `labels` maps names to versions, `rewards` names to version ids (`specs.reward_version`), which evaluations,
    off-policy estimates and gates carry too. `watermark` is the last moment of data the version has seen.
    `feature_views` maps each view behind the feature service to the hash of what feature_repo said of it.
    """

    spec_hash: str
    data_snapshot: str
    feature_service: str
    feature_service_version: str
    protocol: str
    split_digest: str
    watermark: datetime
    labels: Mapping[str, int] = field(default_factory=dict)
    rewards: Mapping[str, str] = field(default_factory=dict)
    parent_version: str | None = None
    git_revision: str | None = None
    feature_views: Mapping[str, str] = field(default_factory=dict)

    def tags(self) -> dict[str, str]:
        """Return the tags, all under `playbill.`; what is not known is left out.

        Views and their hashes are too many for a tag: they stand in the bundle's manifest and in `rows`.
        """
        values = {
            "spec_hash": self.spec_hash,
            "data_snapshot": self.data_snapshot,
            "feature_service": self.feature_service,
            "feature_service_version": self.feature_service_version,
            "protocol": self.protocol,
            "split_digest": self.split_digest,
            "requests": REQUESTS,
            "watermark": self.watermark.isoformat(),
            "labels": _named_versions(self.labels),
            "rewards": ",".join(sorted(self.rewards.values())),
            "parent_version": self.parent_version,
            "git_revision": self.git_revision,
        }
        return {PREFIX + name: value for name, value in values.items() if value}

    def rows(self) -> list[dict[str, str]]:
        """Return a row for each thing that was learnt from: its kind, name and version, for the run's table."""
        kinds: dict[str, Mapping[str, object]] = {
            "label": self.labels,
            "reward": self.rewards,
            "feature service": {self.feature_service: self.feature_service_version},
            "feature view": self.feature_views,
        }
        return [
            {"kind": kind, "name": name, "version": str(version)}
            for kind, named in kinds.items()
            for name, version in sorted(named.items())
        ]


def _named_versions(versions: Mapping[str, int] | Mapping[str, str]) -> str:
    return ",".join(f"{name}:{version}" for name, version in sorted(versions.items()))


def origin_tags(folder: Path, command: str) -> dict[str, str]:
    """Return MLflow's own tags of where a run comes from: user, command, and the git commit checked out in `folder`."""
    tags = {"mlflow.source.type": "LOCAL", "mlflow.source.name": command}
    with suppress(OSError, KeyError):  # a container's user may have no name
        tags["mlflow.user"] = getpass.getuser()
    if revision := git_revision(folder):
        tags["mlflow.source.git.commit"] = revision.removesuffix("-dirty")
    return tags


def git_revision(folder: Path) -> str | None:
    """Return the git commit checked out in `folder`, with `-dirty` when files differ; None outside git."""
    command = ["git", "-C", str(folder), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_GIT_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None
