"""What a ledger has found so far, kept on disk by what it follows from, so that a killed run goes on where it was."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import polars as pl

from playbill.errors import IntegrityError
from playbill.files import replaced_file
from playbill_lab.studies.ledger.arms import Costs

_METADATA = "playbill.ledger"


@dataclass(frozen=True)
class LedgerCell:
    """One model on one seed.

    Args:
        values: A row per request that it answered, or per labelled event that a head was asked about.
        costs: What training and serving it takes; None where nothing was trained.
    """

    values: pl.DataFrame
    costs: Costs | None = None


class LedgerCells:
    """A folder of cells.

    Args:
        folder: Made when missing.
        told: Called with the name of every cell that is made anew.
    """

    def __init__(self, folder: Path, told: Callable[[str], None] | None = None) -> None:
        self.folder, self._told = folder, told or (lambda _name: None)
        folder.mkdir(parents=True, exist_ok=True)

    def get(self, name: str, asked: str, make: Callable[[], LedgerCell]) -> LedgerCell:
        """Return a cell that was kept, or make and keep it.

        Args:
            name: For people.
            asked: Digest of all that the cell follows from.
            make: Makes it.

        Raises:
            IntegrityError: There is a file, and it is no cell.
        """
        path = self.folder / f"{name.replace('/', '-')}-{asked[:16]}.parquet"
        if path.is_file():
            return _read(path)
        found = make()
        _write(found, path)
        self._told(name)
        return found


def _read(path: Path) -> LedgerCell:
    try:
        values = pl.read_parquet(path)
        about: Any = json.loads(pl.read_parquet_metadata(path)[_METADATA])
        return LedgerCell(values, None if about is None else Costs(**about))
    except (pl.exceptions.PolarsError, OSError, KeyError, ValueError, TypeError) as error:
        first = str(error).splitlines()[0]
        raise IntegrityError(f"{path} is no cell of a ledger ({first}); remove it, and it is made anew") from None


def _write(cell: LedgerCell, path: Path) -> None:
    about = json.dumps(None if cell.costs is None else asdict(cell.costs))
    with replaced_file(path, "the cell") as beside:
        cell.values.write_parquet(beside, metadata={_METADATA: about})
