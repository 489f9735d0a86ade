"""Which rows there are for a member: those of the zoo, generated ones spelled out.

Axis letters: T titles.

Rows whose rules leave too few titles: left out, or filled up, as their definition says.

Axis letters: T titles.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import polars as pl

from playbill.datasets.examples.labelled import NAME_END
from playbill.definitions.specs import CandidatesSpec, RowSpec
from playbill.definitions.specs.candidates import ABOUT_TITLES
from playbill.definitions.specs.row import GeneratorSpec, WordsSpec
from playbill.ranking.blend import Scores
from playbill.ranking.candidates import ABSENT, Catalogue, Columns, Mask, Viewer, in_order, select
from playbill.ranking.combinations import choose, combinations_of, name_of, named_combination, tidy, word_key
from playbill.ranking.fallbacks import fallback_scores
from playbill.ranking.popularity import PlayLog

DEFAULT_LANGUAGE = "en"


@dataclass(frozen=True)
class Taste:
    """What generated rows read of a member's history.

    Args:
        watched: Columns of titles played, newest play first.
        liked: Columns of titles to name in "because you watched": those whose last thumb is up, newest first,
            then played ones without a thumb, newest first. A title whose last thumb is down is not among them.
        genres: Genres of the liked titles, the most frequent first, ties by name.
        characters: Characters of the liked titles, likewise.
    """

    watched: Columns = field(default_factory=lambda: np.empty(0, dtype=np.int64))
    liked: Columns = field(default_factory=lambda: np.empty(0, dtype=np.int64))
    genres: tuple[str, ...] = ()
    characters: tuple[str, ...] = ()


def taste_of(history: pl.DataFrame, catalogue: Catalogue) -> Taste:
    """Read a member's taste from rows of `interactions`, all of them before the request."""
    events = in_order(history)
    columns = (events.get_column(name).to_list() for name in ("title_id", "action", "seq"))
    thumb, played, newest = dict[str, str](), dict[str, int](), dict[str, int]()
    # A loop, as a history is short: frames would take five times as long.
    for title, action, seq in zip(*columns, strict=True):
        if title is None or action not in ("play", "thumbs_up", "thumbs_down"):
            continue
        newest[title] = seq
        if action == "play":
            played[title] = seq
        else:
            thumb[title] = action
    watched = sorted(played, key=lambda title: (-played[title], title))
    kept = [title for title in newest if thumb.get(title) != "thumbs_down"]
    kept.sort(key=lambda title: (title not in thumb, -newest[title], title))
    liked = catalogue.columns(kept)
    genres, characters = (_frequent(masks, liked) for masks in (catalogue.genres, catalogue.characters))
    return Taste(catalogue.columns(watched), liked, genres, characters)


def _frequent(masks: Mapping[str, Mask], liked: Columns) -> tuple[str, ...]:
    """Return the groups that some titles are in, those of most of them first, ties by name."""
    counts = {name: int(mask[liked].sum()) for name, mask in masks.items()} if len(liked) else {}
    return tuple(sorted((name for name, count in counts.items() if count), key=lambda name: (-counts[name], name)))


@dataclass(frozen=True)
class RowPlan:
    """One row that may be shown.

    Args:
        row_id: `name`, or `name:genre`, `name:title_id`, `name:character` and `name:combination` for generated rows.
            Unique on a page.
        spec: Its definition.
        title: What it is called, in the member's language where there is one.
        source: Column of its own source title, `ABSENT` when it has none.
        genre: Only titles of this genre, None = of any.
        only: [T] the titles it is about beside its genre; None = any.
        because: Why the member has this row, in words.
    """

    row_id: str
    spec: RowSpec
    title: str
    source: int = ABSENT
    genre: str | None = None
    only: Mask | None = None
    because: str = ""

    @property
    def scored_as(self) -> str:
        """The canvas that its titles are scored for."""
        return self.spec.scored_as or self.spec.canvas

    def about(self, candidates: Mask, catalogue: Catalogue, *, genre_consistency: bool = True) -> Mask:
        """Return those of some candidates that the row is about, [T].

        Args:
            candidates: [T].
            catalogue: Genres of titles.
            genre_consistency: Whether every title of a genre row must have the genre.
        """
        if self.only is not None:
            candidates = candidates & self.only
        if self.genre is not None and genre_consistency:
            candidates = candidates & catalogue.genres[self.genre]
        return candidates


@dataclass(frozen=True)
class Setting:
    """What generated rows read beside the member's taste.

    Args:
        allowed: [T] what may be shown at all, here and now; no row is about another title.
        acclaimed: [T] titles that nearly all liked.
        kids: Whether titles that are not for kids may not even be named.
    """

    allowed: Mask
    acclaimed: Mask
    kids: bool = False

    @classmethod
    def of(cls, catalogue: Catalogue, viewer: Viewer, plays: PlayLog | None = None) -> Setting:
        """Return that of a request; without plays nothing is acclaimed."""
        allowed = catalogue.available(viewer.at, viewer.country)
        if viewer.kids_profile:
            allowed = allowed & catalogue.kids
        acclaimed = np.zeros(len(catalogue), np.bool_) if plays is None else plays.acclaimed(viewer.at)
        return cls(allowed, acclaimed, viewer.kids_profile)


def prepare_rows(specs: Iterable[RowSpec], catalogue: Catalogue) -> None:
    """Work out what rows need of a catalogue, so that no request waits for it."""
    for spec in specs:
        if spec.generator is not None and spec.generator.each == "combination":
            combinations_of(spec.generator, catalogue)


def plan_rows(
    specs: Iterable[RowSpec],
    catalogue: Catalogue,
    taste: Taste,
    language: str | None = None,
    setting: Setting | None = None,
) -> list[RowPlan]:
    """Return the rows of a page in order, generated ones spelled out for this member.

    Args:
        specs: Definitions in the order of the page.
        catalogue: Names and metadata of titles.
        taste: The member's; without any, most generated rows are left out.
        language: The member's, for names of rows and titles.
        setting: Of the request; without one every title may be shown and none is acclaimed.
    """
    if setting is None:
        setting = Setting(np.ones(len(catalogue), np.bool_), np.zeros(len(catalogue), np.bool_))
    known = _Known(catalogue, taste, language, setting)
    return [plan for spec in specs for plan in _plans(spec, known)]


@dataclass(frozen=True)
class _Known:
    """What rows are made of."""

    catalogue: Catalogue
    taste: Taste
    language: str | None
    setting: Setting

    def share_liked(self, group: str, mask: Mask | None) -> str:
        """Say how many of the titles that the member watched and did not dislike are of a group."""
        liked = self.taste.liked
        if mask is None:
            return ""
        return f"{int(mask[liked].sum())} of {len(liked)} titles the member watched and did not dislike are {group}"


def _purpose(spec: RowSpec) -> str:
    """Say what a row that everybody has is for: the rule that makes it what it is, and what ranks it."""
    rules = spec.candidates
    about = {
        "titles the member began and did not finish": rules.in_progress,
        "titles the member finished earlier": rules.finished_before is not None,
        "titles on the member's list": rules.on_my_list,
        "titles launched lately": rules.launched_within is not None,
        "titles that few have played": rules.popularity_percentile is not None and rules.popularity_percentile.below,
        "most played in the country": rules.top_in_country is not None,
    }
    what = next((text for text, holds in about.items() if holds), "titles that may be shown here")
    by = f"the {spec.policy} policy" if spec.blend is None else f"the member's {', '.join(spec.blend)}"
    return f"{what}, ranked by {by}"


def _plans(spec: RowSpec, known: _Known) -> Iterator[RowPlan]:
    if spec.generator is None:
        return iter([RowPlan(spec.name, spec, row_title(spec, known.language), because=_purpose(spec))])
    return _GENERATED[spec.generator.each](spec, spec.generator, known)


def _by_genre(spec: RowSpec, made: GeneratorSpec, known: _Known) -> Iterator[RowPlan]:
    words, masks = made.words.genres if made.words else {}, known.catalogue.genres
    for genre in known.taste.genres[: made.limit]:
        name = in_language(words.get(word_key(genre), {"": genre}), known.language)
        title = tidy(row_title(spec, known.language).replace("{genre}", name))
        because = known.share_liked(f"of genre {genre}", masks.get(genre))
        yield RowPlan(f"{spec.name}:{genre}", spec, title, genre=genre, because=because)


def _by_title(spec: RowSpec, made: GeneratorSpec, known: _Known) -> Iterator[RowPlan]:
    liked = known.taste.liked
    if known.setting.kids:
        liked = liked[known.catalogue.kids[liked]]
    for column in liked[: made.limit].tolist():
        title = row_title(spec, known.language).replace("{title}", known.catalogue.name(column, known.language))
        name = known.catalogue.name(column, known.language)
        because = f"{name} is one of the titles the member watched and did not dislike"
        yield RowPlan(f"{spec.name}:{known.catalogue.title_ids[column]}", spec, title, source=column, because=because)


def _by_character(spec: RowSpec, made: GeneratorSpec, known: _Known) -> Iterator[RowPlan]:
    """Characters of the member's titles first, then those of most titles; all in enough titles that can be shown."""
    masks, allowed = known.catalogue.characters, known.setting.allowed
    sizes = {name: int((mask & allowed).sum()) for name, mask in masks.items()}
    others = sorted(masks, key=lambda name: (-sizes[name], name))
    order = dict.fromkeys([*known.taste.characters, *others])
    for character in [name for name in order if sizes[name] >= spec.minimum_length][: made.limit]:
        title = row_title(spec, known.language).replace("{character}", character)
        because = known.share_liked(f"about {character}", masks[character])
        if character not in known.taste.characters:
            because = f"{character} is in {sizes[character]} titles that can be shown"
        yield RowPlan(f"{spec.name}:{character}", spec, title, only=masks[character], because=because)


def _by_combination(spec: RowSpec, made: GeneratorSpec, known: _Known) -> Iterator[RowPlan]:
    setting, words = known.setting, made.words or WordsSpec()
    allowed = setting.allowed
    if spec.candidates.watched is False:
        allowed = allowed & ~known.catalogue.mask_of(known.taste.watched)
    for own, mask in choose(made, known.catalogue, known.taste.liked, allowed, setting.acclaimed):
        for language in (known.language, DEFAULT_LANGUAGE):
            name = name_of(own, spec.title[language], words, language) if language in spec.title else None
            if name is not None:
                because = known.share_liked(f"in '{name}'", mask)
                yield RowPlan(f"{spec.name}:{own.key}", spec, name, genre=own.genre, only=mask, because=because)
                break


_GENERATED: dict[str, Callable[[RowSpec, GeneratorSpec, _Known], Iterator[RowPlan]]] = {
    "genre": _by_genre,
    "watched_title": _by_title,
    "character": _by_character,
    "combination": _by_combination,
}


def plan_of(spec: RowSpec, row_id: str, catalogue: Catalogue, acclaimed: Callable[[], Mask]) -> RowPlan | None:
    """Return the row that a log calls by its id.

    Args:
        spec: Its definition.
        row_id: See `RowPlan.row_id`.
        catalogue: The titles.
        acclaimed: Returns the [T] titles that nearly all liked then; asked only where the id says so.

    Returns:
        None where the id of a generated row does not say what it is about, or the catalogue does not know that.
    """
    plan, stated = RowPlan(row_id, spec, row_title(spec, None)), row_id.partition(NAME_END)[2]
    each = None if spec.generator is None else spec.generator.each
    if each == "genre":
        return replace(plan, genre=stated) if stated in catalogue.genres else None
    if each == "character":
        return replace(plan, only=catalogue.characters[stated]) if stated in catalogue.characters else None
    if each == "watched_title":
        source = catalogue.column(stated)
        return replace(plan, source=source) if source != ABSENT else None
    if spec.generator is not None:
        found = named_combination(spec.generator, catalogue, stated, acclaimed)
        return None if found is None else replace(plan, genre=found[0].genre, only=found[1])
    return plan


def row_title(spec: RowSpec, language: str | None) -> str:
    """Return a row's name in a language, else in English, else in the first language it has."""
    return in_language(spec.title, language)


def in_language(texts: Mapping[str, str], language: str | None) -> str:
    """Return a text in a language, else in English, else in the first language it has."""
    for wanted in (language, DEFAULT_LANGUAGE):
        if wanted is not None and wanted in texts:
            return texts[wanted]
    return next(iter(texts.values()))


_KEPT = (*ABOUT_TITLES, "hours", "available", "watched", "exclude_source")


def spare_rules(rules: CandidatesSpec) -> CandidatesSpec:
    """Return the rules that what fills a row up must satisfy: all but those about popularity, launches and lists."""
    given = {name: getattr(rules, name) for name in _KEPT}
    return CandidatesSpec(**{name: value for name, value in given.items() if value is not None})


def filled_up(
    plan: RowPlan, scores: Scores, candidates: Mask, plays: PlayLog, viewer: Viewer, policy: str
) -> tuple[Scores, Mask, str]:
    """Add titles to a row that is too short, where its definition wants that; they come after its own.

    Args:
        plan: The row.
        scores: [T] its own.
        candidates: [T] that its rules allow.
        plays: What all members did.
        viewer: Who asks, with the row's own source title.
        policy: The canvas's fallback, which orders what is added unless the row names one.

    Returns:
        Scores, candidates, and a sentence for the answer's notes: empty where nothing was added.
    """
    own, needed = plan.about(candidates, plays.catalogue), plan.spec.minimum_length
    if plan.spec.when_short == "drop" or own.sum() >= needed:
        return scores, candidates, ""
    policy = plan.spec.fallback or policy
    spare = select(plays.catalogue, spare_rules(plan.spec.candidates), viewer) & ~candidates
    if not spare.any():
        return scores, candidates, ""
    order = fallback_scores(policy, plays, viewer)
    floor = scores[candidates].min(initial=0.0) - 1.0
    found = np.where(spare, floor - (order[spare].max() - order), scores)
    note = f"row {plan.row_id}: {int(own.sum())} titles after filtering, fewer than {needed}: filled up by {policy}"
    return found, candidates | spare, note
