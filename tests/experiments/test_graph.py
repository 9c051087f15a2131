"""Jobs that need each other, in processes: their order, their logs, and what is said when one fails or is killed."""

import os
from functools import partial
from pathlib import Path

import pytest

import chores
from freeprm.errors import ConfigError, DataError, WorkerError
from freeprm.experiments.graph import Job, Plan, chains_first, run_jobs


def job(folder: Path, name: str, *needs: str) -> Job:
    work = partial(chores.write, folder / name, tuple(folder / other for other in needs))
    return Job(name=name, needs=frozenset(needs), work=work, log=folder / "logs" / f"{name}.log")


@pytest.fixture(autouse=True)
def importable(monkeypatch: pytest.MonkeyPatch):
    """The processes find the jobs by their module's name."""
    folders = [str(Path(chores.__file__).parent), os.environ.get("PYTHONPATH", "")]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, folders)))


def test_each_job_is_done_after_those_that_it_needs_and_prints_to_its_log(tmp_path: Path):
    jobs = [job(tmp_path, "a"), job(tmp_path, "b"), job(tmp_path, "c", "a"), job(tmp_path, "d", "b", "c")]
    run_jobs(jobs, workers=2, description="test")
    processes = {(tmp_path / name).read_text() for name in "abcd"}
    assert str(os.getpid()) not in processes
    assert len(processes) <= 2
    assert (tmp_path / "logs" / "d.log").read_text().startswith("made d in ")


def test_one_worker_is_this_process(tmp_path: Path):
    run_jobs([job(tmp_path, "a"), job(tmp_path, "b", "a")], workers=1, description="test")
    assert (tmp_path / "b").read_text() == str(os.getpid())


@pytest.mark.parametrize(
    ("work", "kind", "message"),
    [
        (partial(chores.fail, "no such data"), DataError, r"^bad: no such data\. All else"),
        (chores.crash, WorkerError, r"^bad: ZeroDivisionError: nothing to divide by\. .*bad\.log may say more\. All"),
        (chores.die, WorkerError, r"^bad: its process ended with exit code -9;"),
    ],
)
def test_a_failure_is_raised_here_with_the_jobs_name(tmp_path: Path, work, kind, message: str):  # type: ignore[no-untyped-def]  # parametrized
    bad = Job(name="bad", needs=frozenset(), work=work, log=tmp_path / "bad.log")
    with pytest.raises(kind, match=message):
        run_jobs([bad, job(tmp_path, "a")], workers=2, description="test")


@pytest.mark.parametrize("workers", [1, 2])
def test_it_tells_of_each_job_that_has_ended(tmp_path: Path, workers: int):
    ends: list[None] = []
    jobs = [job(tmp_path, "a"), job(tmp_path, "b", "a")]
    run_jobs(jobs, workers=workers, description="test", ended=lambda: ends.append(None))
    assert len(ends) == 2


@pytest.mark.parametrize("workers", [1, 2])
def test_a_failure_stops_none_but_those_that_need_it(tmp_path: Path, workers: int):
    bad = Job(name="bad", needs=frozenset(), work=partial(chores.fail, "no data"), log=tmp_path / "bad.log")
    jobs = [bad, job(tmp_path, "a"), job(tmp_path, "b", "bad"), job(tmp_path, "c", "a")]
    with pytest.raises(DataError, match=r"^bad: no data; not made for want of it: b\. .* \(2 jobs\)"):
        run_jobs(jobs, workers=workers, description="test")
    assert not (tmp_path / "b").exists()
    assert (tmp_path / "c").exists()


def test_a_lost_process_is_replaced(tmp_path: Path):
    lost = [Job(name=f"lost{i}", needs=frozenset(), work=chores.die, log=tmp_path / f"{i}.log") for i in range(3)]
    with pytest.raises(WorkerError, match=r"\(1 jobs\)") as raised:
        run_jobs([*lost, job(tmp_path, "a")], workers=2, description="test")
    assert all(f"lost{i}: its process ended" in str(raised.value) for i in range(3))


def test_errors_of_ours_keep_their_kind_in_this_process_too(tmp_path: Path):
    def refuse() -> None:
        raise ConfigError("no")

    with pytest.raises(ConfigError, match="no"):
        run_jobs([Job(name="x", needs=frozenset(), work=refuse, log=tmp_path / "x.log")], workers=2, description="test")


def jobs(**needs: str) -> list[Job]:
    """Jobs that need jobs, a letter each."""
    return [
        Job(name=name, needs=frozenset(others), work=lambda: None, log=Path(name)) for name, others in needs.items()
    ]


def names(taken: list[Job]) -> str:
    return "".join(job.name for job in taken)


def test_the_longest_chains_go_first_and_equals_in_the_order_given():
    order = chains_first(jobs(a="", b="", c="b", d="", e="c", f="d", g=""))  # b - c - e, d - f
    assert names(order) == "bcedfag"


def test_jobs_wait_for_those_that_they_need_and_for_ever_for_one_that_failed():
    plan = Plan(made := jobs(a="", b="a", c="b", d=""))
    assert names(plan.take(1)) == "a"
    assert names(plan.take(9)) == "d"
    plan.end(made[0], None)
    assert names(plan.take(9)) == "b"
    plan.end(made[1], DataError("b: no"))
    assert not plan.take(9)
