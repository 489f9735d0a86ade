from __future__ import annotations

import threading
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from playbill.errors import ServiceError
from playbill.serving.request_writer import RequestWriter
from playbill.tables import RequestLog

AT = datetime(2024, 1, 1, tzinfo=UTC)


def request(number: int) -> dict[str, Any]:
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

    def write(self, row: dict[str, Any], slates: list[dict[str, Any]]) -> None:
        self.gate.wait(10)
        if self.failures:
            self.failures -= 1
            raise ServiceError("down")
        self.kept.append(row["request_id"])


def test_everything_handed_over_is_in_the_database_after_close(tmp_path: Path) -> None:
    log = RequestLog(f"sqlite:///{tmp_path}/log.db")
    writer = RequestWriter(log)
    threads = [
        threading.Thread(
            target=lambda start=start: [writer.write(request(n), slate(n)) for n in range(start, start + 25)]
        )
        for start in (0, 25, 50, 75)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    writer.close()
    assert sorted(log.requests()["request_id"]) == sorted(f"r{n}" for n in range(100))
    assert log.slates().height == 100


def test_flush_waits_for_what_was_handed_over() -> None:
    log = SlowLog()
    writer = RequestWriter(log)  # type: ignore[arg-type]
    writer.write(request(1), slate(1))
    writer.flush()
    assert log.kept == ["r1"]
    writer.close()


def test_an_outage_is_waited_out_in_order() -> None:
    log = SlowLog(failures=5)
    writer = RequestWriter(log, retry_seconds=0.001)  # type: ignore[arg-type]
    for number in range(3):
        writer.write(request(number), slate(number))
    writer.flush()
    assert log.kept == ["r0", "r1", "r2"]
    writer.close()


def test_a_full_queue_makes_the_writer_wait_instead_of_losing() -> None:
    log = SlowLog()
    log.gate.clear()
    writer = RequestWriter(log, limit=1)  # type: ignore[arg-type]
    done = threading.Event()

    def hand_over() -> None:
        for number in range(4):
            writer.write(request(number), slate(number))
        done.set()

    threading.Thread(target=hand_over).start()
    assert not done.wait(0.1)
    log.gate.set()
    assert done.wait(5)
    writer.close()
    assert log.kept == ["r0", "r1", "r2", "r3"]


def test_closing_during_an_outage_ends_and_counts_what_was_lost() -> None:
    writer = RequestWriter(SlowLog(failures=1000), retry_seconds=0.001)  # type: ignore[arg-type]
    writer.write(request(1), slate(1))
    writer.write(request(2), slate(2))
    writer.close()
    assert writer.lost == 2


def test_a_row_that_is_wrong_does_not_hold_up_the_others(tmp_path: Path) -> None:
    log = RequestLog(f"sqlite:///{tmp_path}/log.db")
    writer = RequestWriter(log)
    writer.write({**request(1), "canvas": None}, [])
    writer.write(request(2), slate(2))
    writer.close()
    assert log.requests()["request_id"].to_list() == ["r2"]
    assert writer.lost == 1
