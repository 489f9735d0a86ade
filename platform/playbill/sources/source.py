"""What a source has to be."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from playbill.sources.canonicalise import Offer, Progress


class Source(Protocol):
    """Outside data that can be offered to the canonical tables.

    Attributes:
        terms: Terms of use that are printed at every ingest; empty for a user's own data.
    """

    terms: str

    def open(self, scratch: Path, progress: Progress) -> tuple[Offer, str]:
        """Find the data and offer it.

        Args:
            scratch: An empty folder for temporary files, removed when the offer has been read.
            progress: Told about downloads and preparations.

        Returns:
            The offer, and one sentence on where the data came from.

        Raises:
            DataError: The data is not what it should be.
            DefinitionError: The mapping has mistakes.
            ServiceError: The data cannot be reached.
        """
        ...
