"""Progress where stderr is no terminal: a line every few seconds, with a rate and the time that is left."""

import io
import re
import time
from pathlib import Path

import pytest
from rich.console import Console

import playbill.cli
from playbill.cli.progress import Stages
from playbill.project.arguments import by_stage


def test_a_line_every_few_seconds_says_steps_rate_and_time_left():
    text = io.StringIO()
    with Stages(Console(file=text, width=40), line_every_s=0.02) as stages:
        stages.stage("read [tables]")
        time.sleep(0.1)
        stages.stage("train")
        deadline = time.perf_counter() + 20
        for step in range(1, 90):
            stages.advance(step, 100, "epoch 1/3, loss 6.270")
            time.sleep(0.01)
            if (step > 5 and "left" in text.getvalue()) or time.perf_counter() > deadline:
                break
    lines = text.getvalue().splitlines()
    assert "· read [tables]: 0:00" in lines
    pattern = r"· train: \d+/100, [\d.]+/s, 0:0\d left, epoch 1/3, loss 6\.270"
    assert any(re.fullmatch(pattern, line) for line in lines), lines
    assert [line.split(" s")[0].rsplit(" ", 1)[0] for line in lines if line.startswith("✓")] == [
        "✓ read [tables]",
        "✓ train",
    ]


@pytest.fixture
def elapsed(monkeypatch):
    """Seconds that have passed, as a list of one that a test sets."""
    seconds = [0.0]
    monkeypatch.setattr(time, "perf_counter", lambda: seconds[0])
    return seconds


def test_the_rate_leaves_out_what_an_earlier_attempt_did(elapsed):
    stages = Stages(Console(file=io.StringIO()))
    stages.stage("train")
    stages.advance(9_000, 10_000)
    elapsed[0] = 10.0
    stages.advance(9_010, 10_000)
    assert stages.line() == "· train: 9,010/10,000, 1/s, 16:30 left"


def test_work_that_names_its_stages_is_told_apart():
    text = io.StringIO()
    stages = Stages(Console(file=text, width=80))
    heard = by_stage(stages)
    heard("download", 5, None)
    assert stages.line() == "· download: 5"
    heard("read", 1, 4)
    heard("read", 2, 4)
    assert stages.line().startswith("· read: 2/4, ")
    assert text.getvalue().startswith("✓ download")


def test_times_are_minutes_and_hours(elapsed):
    stages, lines = Stages(Console(file=io.StringIO())), []
    stages.stage("train")
    for seconds in (0.2, 61, 3_725):
        elapsed[0] = seconds
        lines.append(stages.line())
    assert lines == ["· train: 0:00", "· train: 1:01", "· train: 1:02:05"]


def test_every_command_shows_progress_by_stages():
    folder = Path(playbill.cli.__file__).parent
    own = [path.name for path in folder.glob("*.py") if "rich.progress" in path.read_text()]
    assert own == ["progress.py"]
