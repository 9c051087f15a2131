"""Runs that need each other, here and in processes: their order, their logs, and what is said when one fails."""

import os
from functools import partial
from graphlib import CycleError
from pathlib import Path

import pytest

import chores
from freeprm.errors import ConfigError, DataError, WorkerError
from freeprm.experiments.graph import SHOWN, PlannedRun, chain_lengths, make_runs


def planned(folder: Path, name: str, *inputs: str) -> PlannedRun:
    return PlannedRun(folder=folder / name, stage=chores.write, inputs=tuple(folder / other for other in inputs))


def failing(folder: Path, name: str, message: str = "no data") -> PlannedRun:
    return PlannedRun(folder=folder / name, stage=partial(chores.fail, message=message))


@pytest.fixture(autouse=True)
def importable(monkeypatch: pytest.MonkeyPatch):
    """The processes find the stages by their module's name."""
    folders = [str(Path(chores.__file__).parent), os.environ.get("PYTHONPATH", "")]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, folders)))


def test_each_run_is_made_after_those_that_it_takes_and_prints_to_its_log(tmp_path: Path):
    runs = [
        planned(tmp_path, "a"),
        planned(tmp_path, "b"),
        planned(tmp_path, "c", "a"),
        planned(tmp_path, "d", "b", "c"),
    ]
    make_runs(runs, out=tmp_path, workers=2, description="test")
    processes = {(tmp_path / name).read_text() for name in "abcd"}
    assert str(os.getpid()) not in processes
    assert len(processes) <= 2
    assert (tmp_path / "logs" / "d.log").read_text().startswith("made d in ")


def test_one_worker_is_this_process_whatever_the_order_of_the_list(tmp_path: Path):
    make_runs([planned(tmp_path, "b", "a"), planned(tmp_path, "a")], out=tmp_path, description="test")
    assert (tmp_path / "b").read_text() == str(os.getpid())


def test_a_run_that_starts_processes_of_its_own_is_made_here_and_first(tmp_path: Path):
    alone = PlannedRun(folder=tmp_path / "alone", stage=chores.write, alone=True)
    needing = PlannedRun(folder=tmp_path / "c", stage=chores.write, needs=(alone.folder,))
    make_runs([planned(tmp_path, "a"), needing, alone], out=tmp_path, workers=2, description="test")
    assert (tmp_path / "alone").read_text() == str(os.getpid())
    assert (tmp_path / "c").read_text() != str(os.getpid())


def test_files_that_no_run_makes_are_taken_as_they_are(tmp_path: Path):
    (tmp_path / "given").write_text("rows")
    make_runs([planned(tmp_path, "a", "given")], out=tmp_path, description="test")
    assert (tmp_path / "a").exists()


def test_a_run_that_is_listed_twice_is_made_once_and_two_of_one_folder_are_a_mistake(tmp_path: Path):
    ends: list[None] = []
    make_runs([planned(tmp_path, "a")] * 2, out=tmp_path, description="test", ended=lambda: ends.append(None))
    assert len(ends) == 1
    again = [PlannedRun(folder=tmp_path / "b", stage=partial(chores.fail, message="x")) for _ in range(2)]
    with pytest.raises(DataError, match=r"^b: x"):
        make_runs(again, out=tmp_path, description="test")
    with pytest.raises(AssertionError, match="two runs of one folder"):
        make_runs([failing(tmp_path, "b", "x"), failing(tmp_path, "b", "y")], out=tmp_path, description="test")


@pytest.mark.parametrize(
    ("stage", "kind", "message"),
    [
        (partial(chores.fail, message="no such data"), DataError, r"^bad: no such data\. All else"),
        (chores.crash, WorkerError, r"^bad: ZeroDivisionError: nothing to divide by\. .*bad\.log may say more\. All"),
        (chores.die, WorkerError, r"^bad: its process ended with exit code -9;"),
    ],
)
def test_a_failure_is_raised_here_with_the_runs_name(tmp_path: Path, stage, kind, message: str):  # type: ignore[no-untyped-def]  # parametrized
    bad = PlannedRun(folder=tmp_path / "bad", stage=stage)
    with pytest.raises(kind, match=message):
        make_runs([bad, planned(tmp_path, "a")], out=tmp_path, workers=2, description="test")


@pytest.mark.parametrize("workers", [1, 2])
def test_it_tells_of_each_run_that_has_ended(tmp_path: Path, workers: int):
    ends: list[None] = []
    runs = [planned(tmp_path, "a"), planned(tmp_path, "b", "a")]
    make_runs(runs, out=tmp_path, workers=workers, description="test", ended=lambda: ends.append(None))
    assert len(ends) == 2


@pytest.mark.parametrize("workers", [1, 2])
def test_a_failure_stops_none_but_those_that_need_it(tmp_path: Path, workers: int):
    runs = [
        failing(tmp_path, "bad"),
        planned(tmp_path, "a"),
        planned(tmp_path, "b", "bad"),
        planned(tmp_path, "c", "a"),
    ]
    with pytest.raises(DataError, match=r"^bad: no data; not made for want of it: b\. .* \(2 runs\)"):
        make_runs(runs, out=tmp_path, workers=workers, description="test")
    assert not (tmp_path / "b").exists()
    assert (tmp_path / "c").exists()


def test_equal_failures_are_said_once_and_of_many_runs_that_are_missing_the_first(tmp_path: Path):
    many = [planned(tmp_path, f"m{i}", "x") for i in range(SHOWN + 3)]
    with pytest.raises(DataError, match=r"^x, y: no data; not made for want of it: m0, .*, m7 and 3 more\. All"):
        make_runs([failing(tmp_path, "x"), failing(tmp_path, "y"), *many], out=tmp_path, description="test")


def test_a_lost_process_is_replaced(tmp_path: Path):
    lost = [PlannedRun(folder=tmp_path / f"lost{i}", stage=chores.die) for i in range(3)]
    with pytest.raises(WorkerError, match=r"\(1 runs\)") as raised:
        make_runs([*lost, planned(tmp_path, "a")], out=tmp_path, workers=2, description="test")
    assert all(f"lost{i}: its process ended" in str(raised.value) for i in range(3))


def test_errors_of_ours_keep_their_kind_in_this_process_too(tmp_path: Path):
    def refuse(*, out: Path) -> None:
        raise ConfigError("no")

    with pytest.raises(ConfigError, match="no"):
        make_runs([PlannedRun(folder=tmp_path / "x", stage=refuse)], out=tmp_path, workers=2, description="test")


def test_progress_counts_the_runs_and_guesses_the_time_from_those_of_the_same_stage(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    times = iter([0.0, 60.0, 60.0, 100.0, 100.0, 101.0])  # a takes 60 s, b 40 s
    monkeypatch.setattr("freeprm.experiments.graph.time.monotonic", lambda: next(times))
    make_runs([planned(tmp_path, name) for name in "abc"], out=tmp_path, description="test")
    assert [line for line in capsys.readouterr().err.splitlines() if line.startswith("test: ")] == [
        "test: a; 0 of 3 runs made",
        "test: b; 1 of 3 runs made, about 0:02:00 left",
        "test: c; 2 of 3 runs made, about 0:00:50 left",
    ]


def test_the_longest_chains_go_first():
    needs = {"a": "", "b": "", "c": "b", "d": "", "e": "c", "f": "d", "g": ""}  # b - c - e, d - f
    lengths = chain_lengths({Path(name): set(map(Path, others)) for name, others in needs.items()})
    assert {str(run): length for run, length in lengths.items()} == {
        "b": 2, "c": 2, "e": 2, "d": 1, "f": 1, "a": 0, "g": 0,
    }  # fmt: skip


def test_runs_that_need_each_other_are_refused(tmp_path: Path):
    with pytest.raises(CycleError):
        make_runs([planned(tmp_path, "a", "b"), planned(tmp_path, "b", "a")], out=tmp_path, description="test")
