"""Whether a definition is still that of the champion: an update trains on what is there, and changes nothing else."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from playbill.definitions.specs import ResolvedModel, prune_heads
from playbill.errors import DefinitionError, Problem, did_you_mean
from playbill.features import ServiceSchema
from playbill.training.inherit import Parent

FREE = ("version", "description", "training", "sampling", "evaluate", "gates", "promote", "update")
"""Keys of a model that no weight depends on: the update is made and judged by what they say now."""
SHOWN = 12  # differences that are listed


def updated_definition(now: ResolvedModel, champion: Parent) -> ResolvedModel:
    """Return the definition as the champion can be trained on by it: without the heads that it was trained without.

    Raises:
        DefinitionError: It is another definition than the champion's; every difference is named.
    """
    theirs = champion.bundle.resolved
    gone = {head: why for head, why in theirs.left_out.heads.items() if head in now.model.heads}
    found = prune_heads(now, gone)
    here, there = (_comparable(one) for one in (found, theirs))
    problems = list(_differences("", here, there))
    if problems:
        name = now.model.name
        more = [Problem("...", f"and {len(problems) - SHOWN} more.")] if len(problems) > SHOWN else []
        raise DefinitionError(
            f"model '{name}' is not what its champion {champion.reference} was trained by; train it: "
            f"playbill train {name}",
            [*problems[:SHOWN], *more],
        )
    return found.with_blends({name: theirs.canvases[name].blend for name in theirs.written_blends})


def _comparable(resolved: ResolvedModel) -> dict[str, Any]:
    content = resolved.as_written()
    return content | {"model": {key: value for key, value in content["model"].items() if key not in FREE}}


def _differences(path: str, here: Any, there: Any) -> Iterator[Problem]:
    if isinstance(here, Mapping) and isinstance(there, Mapping):
        for key in dict.fromkeys((*here, *there)):
            yield from _differences(f"{path}.{key}" if path else str(key), here.get(key), there.get(key))
    elif here != there:
        yield Problem(path, f"{_shown(here)}, but the champion has {_shown(there)}.")


def _shown(value: Any) -> str:
    text = "nothing" if value is None else str(value)
    return text if len(text) <= 60 else f"{text[:60]}..."


def require_same_features(schema: ServiceSchema, champion: Parent) -> None:
    """Check that the feature service has the columns that the champion was trained on.

    Raises:
        DefinitionError: It has others; what came and what went is named.
    """
    state = champion.state
    if schema.version == state.service_version:
        return
    here = {column.name for column in schema.columns}
    own = {*state.own_fields}
    there = {*state.numeric, *state.categorical, *state.title_snapshot, *state.title_categorical, *state.title_vectors}
    there -= own
    problems = [Problem(name, "the champion was trained without it.") for name in sorted(here - there)]
    problems += [Problem(name, "is gone.", did_you_mean(name, sorted(here))) for name in sorted(there - here)]
    if not problems:
        problems = [Problem(schema.service, "a column has another type, entity or default than it had.")]
    name = champion.bundle.resolved.model.name
    subject = f"feature service '{schema.service}' is not what {champion.reference} was trained on; train it: "
    raise DefinitionError(f"{subject}playbill train {name}", problems)
