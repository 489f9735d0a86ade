"""The KuaiRand sources: where the files come from, their terms, and the offer made of them.

Source: Chongming Gao et al. (2022), "KuaiRand: An Unbiased Sequential Recommendation Dataset with Randomly
Exposed Videos", CIKM '22, https://doi.org/10.1145/3511808.3557624.
"""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from playbill.errors import DataError, Problem
from playbill.sources.canonicalise import Offer, Progress
from playbill.sources.download import Archive, digest, fetch_archive
from playbill.sources.kuairand.events import exposure_events
from playbill.sources.kuairand.files import Reading, read_folder, unpack_tar
from playbill.sources.kuairand.profiles import members_of, titles_of
from playbill.sources.options import KuaiRandOptions

PUBLISHER = "https://zenodo.org/records/10439422/files/"
SHELF = "kuairand"
TERMS = (
    "KuaiRand is by Kuaishou Technology and the University of Science and Technology of China, under CC BY-SA 4.0: "
    "name the authors, and share what you make of the data alike; please cite doi.org/10.1145/3511808.3557624."
)


class KuaiRandPure:
    """KuaiRand-Pure: 2,622,668 exposures of 7,583 videos to 27,285 members, April and May 2022.

    Args:
        options: Where the data is, if not at the publisher.
    """

    terms = TERMS
    suffix: ClassVar[str] = "pure"
    # The publisher states the checksums in the README of github.com/chongminggao/KuaiRand.
    archive: ClassVar[Archive] = Archive("KuaiRand-Pure.tar.gz", "0820331067a3784d9691136f772b35a7", ())

    def __init__(self, options: KuaiRandOptions) -> None:
        self._path = options.path

    def open(self, scratch: Path, progress: Progress) -> tuple[Offer, str]:
        """Find the files and offer what is in them. See `playbill.sources.source.Source`."""
        if self._path is None:
            archive = fetch_archive(self.archive, progress, publisher=PUBLISHER, shelf=SHELF)
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


def _offer(reading: Reading) -> Offer:
    exposures = reading.exposures
    return Offer(
        titles_of(reading.videos, exposures.videos),
        (exposure_events(part) for part in exposures.parts()),
        members=members_of(reading.users, exposures.first_moment),
    )
