from __future__ import annotations

import json
import threading
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from playbill.errors import ServiceError
from playbill.serving.recording import LogStatus, RequestWriter
from playbill.tables import RequestLog
from playbill.tables.dead_letters import DeadLetters

AT = datetime(2024, 1, 1, tzinfo=UTC)


def made(number: int) -> dict[str, Any]:
    return {"request_id": f"r{number}", "at": AT, "canvas": "home", "context": "{}", "policy": "model"}


def slate(number: int) -> list[dict[str, Any]]:
    return [{"row_position": 0, "position": 0, "title_id": f"t{number}"}]


class SlowLog:
    """Fails the given number of times, then waits for the gate, then keeps what it gets."""

    def __init__(self, failures: int = 0) -> None:
        self.failures, self.kept = failures, []
        self.kept: list[str] = []
        self.gate = threading.Event()
        self.gate.set()

    def write_all(self, answered: list[tuple[dict[str, Any], list[dict[str, Any]]]]) -> None:
        self.gate.wait(10)
        if self.failures:
            self.failures -= 1
            raise ServiceError("down")
        self.kept += [row["request_id"] for row, _ in answered]


@pytest.fixture
def letters(tmp_path: Path) -> DeadLetters:
    return DeadLetters(tmp_path / "set_aside" / "requests.jsonl")


def set_aside(letters: DeadLetters) -> dict[str, str]:
    """Return request_id -> reason of everything in the file."""
    lines = [json.loads(line) for line in letters.path.read_text().splitlines()]
    return {line["row"]["request"]["request_id"]: line["reason"] for line in lines}


def test_everything_handed_over_is_in_the_database_after_close(tmp_path: Path, letters: DeadLetters) -> None:
    log = RequestLog(f"sqlite:///{tmp_path}/log.db")
    writer = RequestWriter(log, letters)
    threads = [
        threading.Thread(target=lambda start=start: [writer.write(made(n), slate(n)) for n in range(start, start + 25)])
        for start in (0, 25, 50, 75)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    writer.close()
    assert sorted(log.requests()["request_id"]) == sorted(f"r{n}" for n in range(100))
    assert log.slates().height == 100


def test_flush_waits_for_what_was_handed_over(letters: DeadLetters) -> None:
    log = SlowLog()
    writer = RequestWriter(log, letters)  # type: ignore[arg-type]
    writer.write(made(1), slate(1))
    writer.flush()
    assert log.kept == ["r1"]
    writer.close()


def test_an_outage_is_waited_out_in_order(letters: DeadLetters) -> None:
    log = SlowLog(failures=5)
    writer = RequestWriter(log, letters, retry_seconds=0.001)  # type: ignore[arg-type]
    for number in range(3):
        writer.write(made(number), slate(number))
    writer.flush()
    assert log.kept == ["r0", "r1", "r2"]
    writer.close()


def test_a_full_queue_makes_the_writer_wait_instead_of_losing(letters: DeadLetters) -> None:
    log = SlowLog()
    log.gate.clear()
    writer = RequestWriter(log, letters, limit=1)  # type: ignore[arg-type]
    done = threading.Event()

    def hand_over() -> None:
        for number in range(4):
            writer.write(made(number), slate(number))
        done.set()

    threading.Thread(target=hand_over).start()
    assert not done.wait(0.1)
    log.gate.set()
    assert done.wait(5)
    writer.close()
    assert log.kept == ["r0", "r1", "r2", "r3"]


def test_closing_during_an_outage_ends_and_sets_aside_what_was_waiting(letters: DeadLetters) -> None:
    writer = RequestWriter(SlowLog(failures=1000), letters, retry_seconds=0.001)  # type: ignore[arg-type]
    writer.write(made(1), slate(1))
    writer.write(made(2), slate(2))
    writer.close()
    assert set(set_aside(letters)) == {"r1", "r2"}
    assert "did not answer: down" in set_aside(letters)["r1"]


def test_a_row_that_is_wrong_does_not_hold_up_the_others(tmp_path: Path, letters: DeadLetters) -> None:
    log = RequestLog(f"sqlite:///{tmp_path}/log.db")
    writer = RequestWriter(log, letters)
    writer.write({**made(1), "canvas": None}, [])
    writer.write(made(2), slate(2))
    writer.close()
    assert log.requests()["request_id"].to_list() == ["r2"]
    assert "request.canvas: missing" in set_aside(letters)["r1"]
    assert writer.status() == LogStatus(waiting=0, dead_letters=1)


POISON = {
    "a NUL": {"member_id": "a\0b"},
    "half a surrogate pair": {"member_id": "a\ud800b"},
    "a number too wide": {"seed": 2**70},
}


@pytest.mark.parametrize("poison", POISON)
@pytest.mark.parametrize("database", ["sqlite", "postgres"])
def test_a_row_that_the_database_refuses_is_set_aside_and_the_others_are_written(
    tmp_path: Path, letters: DeadLetters, database: str, poison: str, request: pytest.FixtureRequest
) -> None:
    url = f"sqlite:///{tmp_path}/log.db" if database == "sqlite" else request.getfixturevalue("postgres_url")
    log, name = RequestLog(url), f"{database}-{poison}-"
    rows = [{**made(number), "request_id": f"{name}{number}"} for number in range(50)]
    rows[17] |= POISON[poison]
    writer = RequestWriter(log, letters)
    for number, row in enumerate(rows):
        writer.write(row, slate(number))
    writer.close()
    written = {found for found in log.requests()["request_id"] if found.startswith(name)}
    # SQLite keeps a NUL; whatever a database refuses is in the file, and nothing is in both or in neither.
    refused = set(set_aside(letters)) if letters.path.exists() else set()
    assert refused == (set() if (database, poison) == ("sqlite", "a NUL") else {f"{name}17"})
    assert written == {row["request_id"] for row in rows} - refused
    assert log.slates().filter(pl.col("request_id").str.starts_with(name)).height == len(written)
    assert writer.status() == LogStatus(waiting=0, dead_letters=len(refused))


def test_rows_set_aside_are_read_back_as_they_were_and_counted_by_the_next_process(letters: DeadLetters) -> None:
    assert letters.add("no\ud800 text", {"member_id": "a\0\ud800b", "at": AT})
    line = json.loads(letters.path.read_text())
    assert line["row"]["member_id"] == "a\0\ud800b"
    assert line["reason"] == "no\ud800 text"
    assert len(DeadLetters(letters.path)) == len(letters) == 1


def test_the_file_of_rows_set_aside_is_bounded_and_what_is_lost_is_counted(tmp_path: Path) -> None:
    letters = DeadLetters(tmp_path / "letters.jsonl", limit_bytes=200)
    kept = [letters.add("refused", {"number": number}) for number in range(10)]
    assert 0 < sum(kept) < 10
    assert (len(letters), letters.lost) == (sum(kept), 10 - sum(kept))
    assert letters.path.stat().st_size <= 200


def test_a_queue_that_stays_full_delays_one_answer_and_no_other(letters: DeadLetters) -> None:
    log = SlowLog()
    log.gate.clear()
    writer = RequestWriter(log, letters, limit=1, room_seconds=0.2)  # type: ignore[arg-type]
    writer.write(made(0), [])
    while writer.status().waiting:
        time.sleep(0.001)
    times = []
    for number in range(1, 6):
        begin = time.perf_counter()
        writer.write(made(number), [])
        times.append(time.perf_counter() - begin)
    log.gate.set()
    writer.close()
    assert sum(times) < 1.0
    assert times[1] >= 0.2
    assert log.kept == ["r0", "r1"]
    assert set(set_aside(letters)) == {"r2", "r3", "r4", "r5"}


def test_once_a_queue_has_room_again_answers_wait_for_it_again(letters: DeadLetters) -> None:
    log = SlowLog()
    log.gate.clear()
    writer = RequestWriter(log, letters, limit=1, room_seconds=0.3)  # type: ignore[arg-type]
    for number in range(4):
        writer.write(made(number), [])
    aside = set(set_aside(letters))
    assert aside
    log.gate.set()
    writer.flush()
    for number in range(4, 40):
        writer.write(made(number), [])
    writer.close()
    assert set(set_aside(letters)) == aside
