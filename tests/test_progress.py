"""Long work is told of with an estimate: by a clock that the test turns."""

import io
import logging
import sys

import pytest
import torch

from tailwise.core import messages, progress
from tailwise.core.data import Data


class Clock:
    now = 0.0

    def monotonic(self) -> float:
        return self.now


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(progress, "time", made)
    return made


def test_a_line_every_half_minute_with_what_is_left(clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "tailwise")
    for _ in progress.over(range(100), "reading images"):
        clock.now += 7
    assert len(caplog.messages) == 700 // 35 - 1
    assert caplog.messages[0] == "reading images: 5 of 100, about 11 min left"
    assert caplog.messages[-1].endswith("95 of 100, about 35 s left")


def test_a_pass_over_data_is_told_of_but_not_inside_other_work(clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "tailwise")
    data = Data(torch.zeros(9, 2), list("abcdefghi"))
    for _ in data.batches(3):
        clock.now += 40
    assert caplog.messages == [
        "a pass over 9 rows: 3 of 9, about 80 s left",
        "a pass over 9 rows: 6 of 9, about 40 s left",
    ]
    caplog.clear()
    with progress.told(4, "training") as tell:
        clock.now += 31
        tell(1, "mean score 2")
        for _ in data.batches(3):
            clock.now += 40
    assert caplog.messages == ["training: 1 of 4, mean score 2, about 93 s left"]


def test_short_work_says_nothing_and_a_terminal_has_a_bar(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", Terminal())
    for _ in progress.over(range(10), "reading images"):
        clock.now += 0.05
    assert sys.stderr.getvalue() == ""  # type: ignore[attr-defined]
    for _ in progress.over(range(10), "reading images"):
        clock.now += 4
    said = sys.stderr.getvalue()  # type: ignore[attr-defined]
    assert "reading images ━━" in said
    assert "9/10, about 4 s left" in said
    assert said.endswith(" \r")
    assert not messages.before
