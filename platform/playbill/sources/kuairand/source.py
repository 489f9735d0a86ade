"""The KuaiRand sources: where the files come from, their terms, and the events made of exposures.

Source: Chongming Gao et al. (2022), "KuaiRand: An Unbiased Sequential Recommendation Dataset with Randomly
Exposed Videos", CIKM '22, https://doi.org/10.1145/3511808.3557624.

Each exposure is an impression, and what the member did about it are further events. All events of an
exposure share its moment, the only one there is, and `request_id`, the exposure's own: which exposures were answered by
one request is not in the data, but which play belongs to which impression is. What came of an exposure was known when
the view was over, so `recorded_at` is that moment; an impression is known at once.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import polars as pl

from playbill.errors import DataError, Problem
from playbill.schema import UNKNOWN_COUNTRY
from playbill.sources.canonicalise import Progress, SourceData
from playbill.sources.download import Archive, digest, fetch_archive
from playbill.sources.kuairand.files import KuaiRandFiles, members_of, read_folder, titles_of, unpack_tar
from playbill.sources.registry import KuaiRandOptions
from playbill.tables import TIMESTAMP

PUBLISHER = "https://zenodo.org/records/10439422/files/"
FOLDER = "kuairand"
TERMS = (
    "KuaiRand is by Kuaishou Technology and the University of Science and Technology of China, under CC BY-SA 4.0: "
    "name the authors, and share what you make of the data alike; please cite doi.org/10.1145/3511808.3557624."
)


class KuaiRandPure:
    """KuaiRand-Pure: 2,622,668 exposures of 7,583 videos to 27,285 members, April and May 2022."""

    terms = TERMS
    suffix: ClassVar[str] = "pure"
    # The publisher states the checksums in the README of github.com/chongminggao/KuaiRand.
    archive: ClassVar[Archive] = Archive("KuaiRand-Pure.tar.gz", "0820331067a3784d9691136f772b35a7", ())

    def __init__(self, options: KuaiRandOptions) -> None:
        self._path = options.path

    def open(self, scratch: Path, progress: Progress) -> tuple[SourceData, str]:
        """Find the files and offer what is in them. See `playbill.sources.registry.Source`."""
        if self._path is None:
            archive = fetch_archive(self.archive, progress, publisher=PUBLISHER, folder=FOLDER)
            folder, route = unpack_tar(archive, scratch, self.suffix), f"the publisher's {archive.name}, MD5 verified"
        elif self._path.is_dir():
            folder, route = self._path, f"the files in {self._path}, not checksummed"
        elif self._path.is_file():
            folder = unpack_tar(self._path, scratch, self.suffix)
            known = digest(self._path, "md5") == self.archive.md5
            route = f"{self._path}, " + ("MD5 verified" if known else "which is not the publisher's archive")
        else:
            raise DataError(str(self._path), [Problem("path", "there is no such file or folder.")])
        progress("read logs", 0, None)
        reading = read_folder(folder, scratch, self.suffix)
        progress("read logs", 1, 1)
        repeated = reading.exposures.repeated
        return _offer(reading), route + (f"; {repeated:,} repeated rows left out" if repeated else "")


class KuaiRand1K(KuaiRandPure):
    """KuaiRand-1K: 11,756,073 exposures of 4,369,953 videos to 1,000 members."""

    suffix = "1k"
    archive = Archive("KuaiRand-1K.tar.gz", "6b0b9c8222d67fcd4c676218edca3f1f", ())


class KuaiRand27K(KuaiRandPure):
    """KuaiRand-27K: 323,464,444 exposures of 32,038,725 videos to 27,285 members. Needs some 100 GB of disk."""

    suffix = "27k"
    archive = Archive("KuaiRand-27K.tar.gz", "3e3c799a24e2d23a4d2c757fbf9adf59", ())


def _offer(reading: KuaiRandFiles) -> SourceData:
    exposures = reading.exposures
    return SourceData(
        titles_of(reading.videos, exposures.videos),
        (exposure_events(part) for part in exposures.parts()),
        members=members_of(reading.users, exposures.first_moment),
    )


RANDOM_POOL = 7_583
"""Videos in the pool that random exposures were drawn from, each equally likely (the publisher's README)."""


@dataclass(frozen=True, slots=True)
class EventKind:
    """One event an exposure can become."""

    action: str
    when: pl.Expr
    """Which exposures have it."""
    milliseconds: str | None = None
    """Column with how long it lasted, if that is known."""
    of_title: bool = False
    """That time is time played, so it also gives the progress."""


def _is(column: str) -> pl.Expr:
    return pl.col(column) == 1


EVENT_KINDS = (
    EventKind("impression", pl.lit(True)),
    EventKind("play", _is("is_click"), "play_time_ms", of_title=True),
    EventKind("kuairand.brief_view", ~_is("is_click") & (pl.col("play_time_ms") > 0), "play_time_ms", of_title=True),
    EventKind("kuairand.long_view", _is("long_view")),
    EventKind("thumbs_up", _is("is_like")),
    EventKind("thumbs_down", _is("is_hate")),
    EventKind("kuairand.follow", _is("is_follow")),
    EventKind("kuairand.comment", _is("is_comment")),
    EventKind("kuairand.forward", _is("is_forward")),
    EventKind(
        "kuairand.profile_enter", _is("is_profile_enter") | (pl.col("profile_stay_time") > 0), "profile_stay_time"
    ),
    EventKind("kuairand.comments_view", pl.col("comment_stay_time") > 0, "comment_stay_time"),
)
"""In the order that an exposure's events take within the member."""

_SEQ_STEP = 16
"""Numbers kept for the events of one exposure; more than there are kinds."""

_KEY = ("user_id", "time_ms", "video_id", "tab")


def exposure_events(exposures: pl.DataFrame) -> pl.DataFrame:
    """Turn whole members' exposures (`LOG_COLUMNS`, int64, without nulls and repeated rows) into unsorted interactions.

    Exposures of one member at one moment are ordered by the number of the video: their order in a file would be an
    accident.
    """
    rest = [name for name in exposures.columns if name not in _KEY]
    ordered = exposures.sort(*_KEY, *sorted(rest))
    ranked = ordered.with_columns(
        _rank=pl.int_range(pl.len(), dtype=pl.Int64).over("user_id"),
        _copy=pl.int_range(pl.len(), dtype=pl.Int64).over(_KEY),
    )
    again = pl.when(pl.col("_copy") > 0).then(pl.format("-{}", pl.col("_copy") + 1)).otherwise(pl.lit(""))
    described = ranked.with_columns(
        request_id=pl.concat_str(pl.format("{}-{}-{}-{}", "user_id", "video_id", "time_ms", "tab"), again),
        event_at=_moment(pl.col("time_ms")),
        known_at=_moment(pl.col("time_ms") + pl.col("play_time_ms")),
        canvas=pl.format("kuairand.tab_{}", "tab"),
        propensity=pl.when(_is("is_rand")).then(pl.lit(1 / RANDOM_POOL, dtype=pl.Float32)),
    )
    return pl.concat([_events(described, kind, place) for place, kind in enumerate(EVENT_KINDS)])


def _events(exposures: pl.DataFrame, kind: EventKind, place: int) -> pl.DataFrame:
    played = pl.col("play_time_ms") / pl.col("duration_ms")
    seconds = pl.col(kind.milliseconds) / 1000 if kind.milliseconds else pl.lit(None)
    share = pl.when(pl.col("duration_ms") > 0).then(pl.min_horizontal(1.0, played))
    return exposures.filter(kind.when).select(
        event_id=pl.concat_str("request_id", pl.lit(f"-{kind.action.removeprefix('kuairand.')}")),
        member_id=pl.col("user_id").cast(pl.String),
        seq=pl.col("_rank") * _SEQ_STEP + place,
        event_at="event_at",
        recorded_at="event_at" if place == 0 else "known_at",
        action=pl.lit(kind.action),
        title_id=pl.col("video_id").cast(pl.String),
        canvas="canvas",
        request_id="request_id",
        country=pl.lit(UNKNOWN_COUNTRY),
        duration_s=seconds.cast(pl.Float32),
        progress=(share if kind.of_title else pl.lit(None)).cast(pl.Float32),
        propensity="propensity",
    )


def _moment(milliseconds: pl.Expr) -> pl.Expr:
    return pl.from_epoch(milliseconds, "ms").dt.replace_time_zone("UTC").cast(TIMESTAMP)
