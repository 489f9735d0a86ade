"""Vectors that a model version published: two views a version, written together or not at all, and never changed.

```
features/vectors/foundation_v3/members.parquet   member_id, vector, event_timestamp, created_timestamp
features/vectors/foundation_v3/titles.parquet    title_id, vector, bias, event_timestamp, created_timestamp
features/vectors/foundation_v3/split.parquet     what the version was trained on, and what was held out from it
features/vectors/foundation_v3/_map.npy          what is applied to the version's own vectors, [2, D, D]
features/vectors/foundation_v3/_state.json       which vectors these are: version, digest, lineage
```

The views are `foundation_member_vectors_v3` and `foundation_title_vectors_v3`: the version is in the name, and the
digest of the vectors in the record. A model that reads them records the digest (`VectorPin`), and is refused where the
store holds others: a product of vectors of two spaces is a number without a meaning.

What a value knows: a member's vector is stamped at the end of its day, and computed from events before. A title has
one vector, stamped before everything, so that a request of any time finds it; like the weights behind every vector, it
has seen the log up to the version's watermark, which is its `created_timestamp`. So a model must not be judged on what
a version whose vectors it reads was trained on: `split.parquet` is compared before it is trained.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import polars as pl
from pydantic import BaseModel, ConfigDict, ValidationError

from playbill.arrays import Floats64
from playbill.clock import parse_moment
from playbill.definitions.zoo.feature_definitions import python_files, read_feature_repo
from playbill.errors import DefinitionError, IntegrityError, Problem, StateError
from playbill.features.axis import CHANGED_AT, CREATED_AT
from playbill.features.store_errors import raises_product_errors
from playbill.features.view_folder import building
from playbill.files import file_digest, remove_leftovers, replaced_folder, write_text
from playbill_feast.offline.parquet_files import STATE

FOLDER = "vectors"
MEMBERS, TITLES, SPLIT, MAP = "members.parquet", "titles.parquet", "split.parquet", "_map.npy"
TAG = "playbill.vectors"
"""Tag of a registered view: the version whose vectors it holds, such as `foundation:3`."""
ALWAYS = datetime(1900, 1, 1, tzinfo=UTC)
"""Stamp of titles' vectors: before every request."""
VIEW = re.compile(r"(?P<model>[a-z][a-z0-9_]*)_(?P<kind>member|title)_vectors_v(?P<version>[1-9]\d*)")

Pins = Mapping[str, Mapping[str, str]]
"""View -> `VectorPin` as JSON, as bundles hold them."""


class VectorPin(BaseModel):
    """Which vectors a model was trained with."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: str  # `foundation:3`
    digest: str  # of the vectors


class PublishedVectors(BaseModel):
    """What is published of one version."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str
    version: int
    bundle: str  # digest of the version's bundle
    head: str  # whose queries and titles these are
    width: int
    digest: str  # of bundle, head and map: which vectors these are
    lineage: int  # vectors of one lineage can be compared
    before: str | None = None  # version onto whose titles these were turned
    common: int = 0  # titles that were turned onto where they were
    note: str = ""  # why a lineage was started
    cadence_hours: int = 24  # a member has a vector for each so many hours with events
    watermark: str  # last moment of the log that the version has seen
    until: str  # members' vectors are there up to this moment
    snapshot_id: str  # the tables' state
    members: int
    member_rows: int
    titles: int
    member_limit: int | None = None  # members that were active last, None = all

    @property
    def reference(self) -> str:
        """`model:version`."""
        return f"{self.model}:{self.version}"

    @property
    def views(self) -> tuple[str, str]:
        """Names of the views of members and of titles."""
        return view_name(self.model, "member", self.version), view_name(self.model, "title", self.version)

    @property
    def pin(self) -> VectorPin:
        """What a model that reads them records."""
        return VectorPin(version=self.reference, digest=self.digest)


def view_name(model: str, kind: str, version: int) -> str:
    """Return what the view of a version's vectors is called; `kind` is `member` or `title`."""
    return f"{model}_{kind}_vectors_v{version}"


def vectors_folder(features: Path, model: str, version: int) -> Path:
    """Return where a version's vectors are."""
    return features / FOLDER / f"{model}_v{version}"


def read_vectors(features: Path, model: str, version: int) -> PublishedVectors | None:
    """Return what is published of a version, None where nothing is.

    Raises:
        IntegrityError: The record is damaged.
    """
    path = vectors_folder(features, model, version) / STATE
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        content.pop("digests")
        return PublishedVectors.model_validate(content)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, ValidationError) as error:
        advice = f"remove {path.parent} and run `playbill vectors publish {model}:{version}`"
        raise IntegrityError(f"the record of published vectors {path} cannot be read: {error}; {advice}") from None


def published_vectors(features: Path) -> tuple[PublishedVectors, ...]:
    """Return what is published in a workspace, by model and version."""
    found = []
    for path in sorted((features / FOLDER).glob(f"*/{STATE}")):
        model, _, version = path.parent.name.rpartition("_v")
        if not path.parent.name.startswith(".") and version.isdigit():
            found.append(read_vectors(features, model, int(version)))
    return tuple(sorted((one for one in found if one is not None), key=lambda one: (one.model, one.version)))


def title_vectors_of(features: Path, record: PublishedVectors) -> pl.DataFrame:
    """Return the titles of a version as published: title_id and vector."""
    path = vectors_folder(features, record.model, record.version) / TITLES
    return pl.read_parquet(path, columns=["title_id", "vector"])


def vectors_map_of(features: Path, record: PublishedVectors) -> Floats64:
    """Return what is applied to a version's own vectors: [2, D, D], of titles and of members."""
    path = vectors_folder(features, record.model, record.version) / MAP
    found: Floats64 = np.load(path, allow_pickle=False)
    return found


@raises_product_errors
def write_vectors(
    features: Path,
    record: PublishedVectors,
    members: pl.DataFrame,
    titles: pl.DataFrame,
    split: Path,
    applied: Floats64,
) -> None:
    """Write both views of a version and their record, in the place of what was there, by one rename.

    `members` has member_id, vector and event_timestamp, `titles` title_id, vector and bias.

    Raises:
        StateError: Another process is building features.
        StorageError: The disk is full or cannot be written; what was there before still is.
    """
    final = vectors_folder(features, record.model, record.version)
    known_from = pl.lit(parse_moment(record.watermark)).cast(pl.Datetime("us", "UTC"))
    # A member's vector came to be known when its day was over, by a version that was there by then at the earliest.
    of_members = members.with_columns(pl.max_horizontal(CHANGED_AT, known_from).alias(CREATED_AT))
    always = pl.lit(ALWAYS).cast(pl.Datetime("us", "UTC"))
    of_titles = titles.with_columns(always.alias(CHANGED_AT), known_from.alias(CREATED_AT))
    with building(features):
        remove_leftovers(final)
        with replaced_folder(final, "the vectors") as folder:
            of_members.write_parquet(folder / MEMBERS, compression="zstd")
            of_titles.write_parquet(folder / TITLES, compression="zstd")
            (folder / SPLIT).write_bytes(split.read_bytes())
            np.save(folder / MAP, applied, allow_pickle=False)
            digests = {path.name: file_digest(path) for path in folder.iterdir()}
            content = {**record.model_dump(mode="json"), "digests": digests}
            write_text(folder / STATE, json.dumps(content, indent=1), "the record of the vectors")


def pins_of(features: Path, views: Iterable[str]) -> dict[str, dict[str, str]]:
    """Return the vectors that some views hold now, by view; views that hold none are left out.

    Raises:
        StateError: A view is declared, and nothing is published of its version here; all are named.
    """
    found, missing = {}, []
    for view in views:
        match = VIEW.fullmatch(view)
        if match is None:
            continue
        record = read_vectors(features, match["model"], int(match["version"]))
        if record is None:
            missing.append(f"{view} (`playbill vectors publish {match['model']}:{match['version']}`)")
        else:
            found[view] = record.pin.model_dump()
    if missing:
        raise StateError(f"no vectors are published here for {', '.join(missing)}")
    return found


def require_pinned(features: Path, pins: Pins, reader: str) -> None:
    """Check that the store holds the very vectors that a model was trained with.

    Args:
        features: The workspace's features folder.
        pins: View -> what the model was trained with.
        reader: The model, for the message.

    Raises:
        IntegrityError: A view has gone, or holds other vectors; all are named.
    """
    problems = []
    for view, content in pins.items():
        pin, match = VectorPin.model_validate(dict(content)), VIEW.fullmatch(view)
        record = None if match is None else read_vectors(features, match["model"], int(match["version"]))
        if record is None:
            problems.append(f"{view} holds nothing, and was {_shown(pin)}: `playbill vectors publish {pin.version}`")
        elif record.pin != pin:
            problems.append(
                f"{view} holds {_shown(record.pin)}, and was {_shown(pin)}: put back the folder that was published, "
                "or train again on what is there"
            )
    if problems:
        raise IntegrityError(f"{reader} was trained with other vectors than the store holds: {'; '.join(problems)}")


def _shown(pin: VectorPin) -> str:
    return f"vectors {pin.digest[:12]} of {pin.version}"


DECLARED = "published_vectors.py"

_HEADER = '''"""Vectors of model versions. `playbill vectors publish` adds to this file, and services name its views."""

{imports}from playbill.features.own import member_vectors, title_vectors
'''
_VIEWS = """
{members} = member_vectors(name="{members}", entity={member}, length={length})
{titles} = title_vectors(name="{titles}", entity={title}, length={length})
"""


def declare_vectors(feature_repo: Path, record: PublishedVectors) -> Path | None:
    """Add a version's views to feature_repo; returns the file that was written, None where they are there already.

    The definitions are code like any other of feature_repo, so that plain Feast registers them too and a service can
    name them. They are the same in every workspace: which vectors a view holds is a matter of the workspace's files.

    Raises:
        DefinitionError: feature_repo has no entity with the join key member_id, or none with title_id; or its file of
            published vectors is no Python.
    """
    members, titles = record.views
    known = read_feature_repo(feature_repo).definitions
    if all(("feature_view", name) in known for name in (members, titles)):
        return None
    path = feature_repo / DECLARED
    entities = _entities(feature_repo)
    lacking = [key for key in ("member_id", "title_id") if key not in entities]
    if lacking:
        what = "is declared nowhere at the top level of a file."
        raise DefinitionError(
            str(feature_repo), [Problem(f"an entity with the join key {key}", what) for key in lacking]
        )
    text = path.read_text(encoding="utf-8") if path.is_file() else _header(entities)
    member, title = (entities[key][1] for key in ("member_id", "title_id"))
    views = _VIEWS.format(members=members, titles=titles, member=member, title=title, length=record.width)
    write_text(path, text.rstrip("\n") + "\n" + views, "the views of published vectors")
    return path


def _header(entities: dict[str, tuple[str, str]]) -> str:
    lines = sorted({f"from {entities[key][0]} import {entities[key][1]}\n" for key in ("member_id", "title_id")})
    return _HEADER.format(imports="".join(lines))


def _entities(feature_repo: Path) -> dict[str, tuple[str, str]]:
    """Return join key -> the module and the variable of the entity that has it, read from the folder's text."""
    found: dict[str, tuple[str, str]] = {}
    for path in python_files(feature_repo):
        try:
            tree = ast.parse(path.read_bytes())
        except (SyntaxError, ValueError):
            continue
        for statement in tree.body:
            match statement:
                case ast.Assign(targets=[ast.Name(id=name)], value=ast.Call(func=ast.Name(id="Entity")) as call):
                    keys = (keyword.value for keyword in call.keywords if keyword.arg == "join_keys")
                    for key in (element for keys_of in keys for element in ast.walk(keys_of)):
                        if isinstance(key, ast.Constant) and isinstance(key.value, str):
                            found.setdefault(key.value, (path.stem, name))
    return found
