"""Progress is silent but for one line where stderr is no terminal, and passes items on untouched."""

import re

import pytest

from freeprm.io.progress import bar, track


def test_track_passes_items_on_and_says_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert list(track(iter("abc"), description="grade", total=3)) == ["a", "b", "c"]
    captured = capsys.readouterr()
    assert captured.out == ""
    assert re.fullmatch(r"grade: 3 items in \d+\.\d s, \d+\.\d/s\n", captured.err)


def test_track_says_how_far_it_came_when_stopped(capsys: pytest.CaptureFixture[str]) -> None:
    def fail_at_third() -> None:
        for index in track(range(9), description="grade"):
            if index == 2:
                raise KeyError(index)

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
