"""The views of one's own in `feature_repo/`: those computed from the event log, and those that read files.

What needs Feast is imported when there is something of one's own: a build of the shipped views alone never is slower.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from playbill.definitions.zoo.feature_definitions import FeatureRepo, read_feature_repo
from playbill.errors import DefinitionError, Problem
from playbill.features.feast_import import import_feast
from playbill.features.increments import TABLE_VIEWS
from playbill.features.views import EVENT_VIEWS, EventView

if TYPE_CHECKING:
    from feast.feature_view import FeatureView

SHIPPED = frozenset({*TABLE_VIEWS, *EVENT_VIEWS})
"""Views that `features build` computes by code of Playbill."""


def has_own_views(feature_repo: Path) -> bool:
    """Say whether a folder has stored views that Playbill does not ship, without importing it."""
    return any(True for _ in _files_of_own(feature_repo, read_feature_repo(feature_repo)))


def own_event_views(feature_repo: Path) -> dict[str, EventView]:
    """Return the views that `event_view` and `event_function` declare in a folder, by name.

    Raises:
        DefinitionError: A definition is wrong, or takes the name of a shipped view.
    """
    repo = read_feature_repo(feature_repo)
    if not any(definition.computed for definition in repo.definitions.values()):
        return {}
    import_feast()
    from playbill.features.own import recipe_of

    found = {}
    for name, view in own_feature_views(feature_repo, repo).items():
        recipe = recipe_of(view)
        if recipe is not None:
            definition = repo.definitions.get(("feature_view", name))
            found[name] = recipe.view("" if definition is None else definition.content)
    if taken := sorted(SHIPPED & found.keys()):
        raise DefinitionError(
            str(feature_repo), [Problem(name, "is the name of a shipped view.", "Take another.") for name in taken]
        )
    return found


def own_feature_views(feature_repo: Path, repo: FeatureRepo | None = None) -> Mapping[str, FeatureView]:
    """Return the stored views in a folder that Playbill does not ship, by name; imports the folder if there are any."""
    files = set(_files_of_own(feature_repo, repo or read_feature_repo(feature_repo)))
    if not files:
        return {}
    import_feast()
    from feast import Entity, Field
    from feast.feature_view import FeatureView
    from feast.types import String

    from playbill.features.own import recipe_of
    from playbill.features.registration import imported

    objects = imported(feature_repo, sorted(files))
    keys = {one.name: one.join_key for one in objects if isinstance(one, Entity)}
    stored = [one for one in objects if isinstance(one, FeatureView)]
    views = {one.name: one for one in stored if one.name not in SHIPPED or recipe_of(one) is not None}
    for view in views.values():
        # Feast fills them in when a view is registered.
        view.entity_columns = view.entity_columns or [
            Field(name=keys[name], dtype=String) for name in view.entities if name in keys
        ]
    return dict(sorted(views.items()))


def _files_of_own(feature_repo: Path, repo: FeatureRepo) -> Iterator[str]:
    for definition in repo.definitions.values():
        if definition.stored and (definition.name not in SHIPPED or definition.computed):
            yield definition.place.rpartition(":")[0].partition("/")[2]
