"""Progress is silent but for one line where stderr is no terminal, and says how far it came."""

import re

import pytest

from freeprm.io import progress
from freeprm.io.progress import bar, duration


def test_bar_says_one_line_at_its_end(capsys: pytest.CaptureFixture[str]) -> None:
    with bar("grade", 3) as advance:
        for _ in "abc":
            advance()
    captured = capsys.readouterr()
    assert captured.out == ""
    assert re.fullmatch(r"grade: 3 items in \d+\.\d s, \d+\.\d/s\n", captured.err)


def test_bar_says_how_far_it_came_when_stopped(capsys: pytest.CaptureFixture[str]) -> None:
    def fail_at_third() -> None:
        with bar("grade", 9) as advance:
            for index in range(9):
                if index == 2:
                    raise KeyError(index)
                advance()

    with pytest.raises(KeyError):
        fail_at_third()
    assert capsys.readouterr().err.startswith("grade: 2 items in")


def test_bar_counts_units_and_keeps_the_last_note(capsys: pytest.CaptureFixture[str]) -> None:
    with bar("train", 100, unit="tokens") as advance:
        advance(60, "loss 0.7")
        advance(40)
    assert re.fullmatch(r"train: 100 tokens in .*/s, loss 0\.7\n", capsys.readouterr().err)


def test_bar_is_drawn_on_a_terminal(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm")
    with bar("score", 10, unit="tokens") as advance:
        advance(10, "half a note")
    shown = capsys.readouterr().err
    assert "score" in shown
    assert "10/10" in shown
    assert "tokens/s" in shown
    assert "half a note" in shown


def test_a_line_comes_now_and_then_where_there_is_no_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("freeprm.io.progress.LINE_SECONDS", 0.0)
    with bar("sample", 1000, unit="samples", done=200) as advance:
        advance(400, "9 tokens/s")
    with bar("count", unit="rows") as advance:
        advance(5)
    first, last, unknown, _ = capsys.readouterr().err.splitlines()
    assert re.fullmatch(r"sample: 600 of 1,000 samples, \d+\.\d/s, \d:\d\d:\d\d left, 9 tokens/s", first)
    assert re.fullmatch(r"sample: 400 samples besides 200 from before in \d+\.\d s, .*/s, 9 tokens/s", last)
    assert re.fullmatch(r"count: 5 rows, \d+\.\d/s", unknown)


def test_what_was_done_before_counts_in_neither_rate_nor_time_left(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([100.0] + [110.0] * 9)  # ten seconds pass before anything is asked
    monkeypatch.setattr("freeprm.io.progress.LINE_SECONDS", 10.0)
    monkeypatch.setattr("freeprm.io.progress.time.perf_counter", lambda: next(clock))
    lines = progress._Lines("grade", 400, "rows", 100)
    lines.count(50, "")
    assert lines.is_due()
    line = lines.now()  # 50 rows in 10 s; the 250 left take 50 s
    assert line == "grade: 150 of 400 rows, 5.0/s, 0:00:50 left"


def test_slow_work_says_how_long_one_takes_instead_of_a_rate_of_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([100.0] + [350.0] * 9)
    monkeypatch.setattr("freeprm.io.progress.time.perf_counter", lambda: next(clock))
    lines = progress._Lines("compare", 12, "jobs", 0)
    lines.count(5, "")
    line = lines.now()
    assert line == "compare: 5 of 12 jobs, 50 s each, 0:05:50 left"


def test_the_total_may_be_guessed_anew(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("freeprm.io.progress.LINE_SECONDS", 0.0)
    with bar("sample", unit="tokens") as advance:
        advance(40, total=100)
        advance(40, total=90)
    first, second, _ = capsys.readouterr().err.splitlines()
    assert first.startswith("sample: 40 of 100 tokens")
    assert second.startswith("sample: 80 of 90 tokens")


@pytest.mark.parametrize(("seconds", "said"), [(2.34, "2.3 s"), (61.0, "61 s"), (1020.0, "17 min"), (9000.0, "2.5 h")])
def test_a_duration_is_said_as_people_say_it(seconds: float, said: str):
    assert duration(seconds) == said
