"""Rows that could not be stored, set aside with the reason: one JSON object a line, on disk before anything goes on."""

from __future__ import annotations

import json
import logging
import os
import threading
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

logger = logging.getLogger(__name__)

LIMIT_BYTES = 64 * 1024 * 1024


class DeadLetters:
    """One file of rows set aside. Safe to share between threads; processes may append to the same file.

    What comes after it has grown to `limit_bytes` is lost, and counted.
    """

    def __init__(self, path: Path, limit_bytes: int = LIMIT_BYTES) -> None:
        self.path, self._limit = path, limit_bytes
        self._lock = threading.Lock()
        self.lost = 0
        self._count = self._lines()

    def __len__(self) -> int:
        """Return how many rows are in the file: those found in it, and those that this process set aside."""
        return self._count

    def add(self, reason: str, row: Mapping[str, Any], at: datetime | None = None) -> bool:
        """Set one row aside, log that it was, and return whether it is on disk: not when the file cannot take it.

        Texts that no database takes are written as JSON escapes.
        """
        letter = {"at": None if at is None else at.isoformat(), "reason": reason, "row": row}
        line = json.dumps(letter, ensure_ascii=True, default=str).encode() + b"\n"
        with self._lock:
            kept = self._append(line)
            if kept:
                self._count += 1
            else:
                self.lost += 1
        logger.error("a row was %s: %s", f"set aside in {self.path}" if kept else "lost", _escaped(reason))
        return kept

    def _append(self, line: bytes) -> bool:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            # One write of a whole line at the end: two processes never mix theirs.
            descriptor = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
            try:
                if os.fstat(descriptor).st_size + len(line) > self._limit:
                    logger.error("%s is full: look at it, then move it away", self.path)
                    return False
                os.write(descriptor, line)
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
        except OSError as error:
            logger.error("%s cannot be written: %s", self.path, error)
            return False
        return True

    def _lines(self) -> int:
        try:
            with self.path.open("rb") as file:
                return sum(chunk.count(b"\n") for chunk in iter(lambda: file.read(1 << 20), b""))
        except FileNotFoundError:
            return 0


def _escaped(text: str) -> str:
    return text.encode("ascii", "backslashreplace").decode()
