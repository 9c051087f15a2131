"""Which job is next."""

from pathlib import Path

from freeprm.errors import DataError
from freeprm.experiments.comparison.planning import Job, Plan, chains_first


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
