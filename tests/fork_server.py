"""A process with everything imported, which forks a child for each run of a stage and kills it in the middle.

A program of its own for tests/test_crash_safety.py: importing torch for each of many runs would take minutes, and a
test process may have threads, which do not survive a fork. Orders come on standard input and answers go to standard
output, as lines of JSON.
"""

import json
import os
import resource
import signal
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

import freeprm.datasets.rows
import freeprm.engines.hf
import freeprm.executors.local
import freeprm.io.config  # noqa: F401  # what stages find by name, imported before the first fork
from freeprm.scorers.implicit import ImplicitPRM
from freeprm.stages import evaluation, grading, sampling, scoring, selection, training

PARTS = 4  # rows appended at a time: small, so that there are many moments to be killed at
KILLED_BY = (signal.SIGKILL, signal.SIGXFSZ)


def main() -> None:
    """Obey orders until there are no more.

    An order is {"stage", "out", "arguments", "kill"}; kill is None, {"seconds": s}, {"event": k} or {"bytes": n}. The
    answer has `status` (minus the signal where it was killed), `seconds`, and `events` where it was not.
    """
    TypeAdapter(int)  # imports the rest of pydantic
    sampling._SYNC_SECONDS = 0.0
    grading._FLUSH_ROWS = scoring.BATCH = PARTS
    print(json.dumps("ready"), flush=True)
    for line in sys.stdin:
        print(json.dumps(obey(**json.loads(line))), flush=True)


def obey(stage: str, out: str, arguments: dict[str, Any], kill: dict[str, Any] | None) -> dict[str, Any]:
    """Run a stage in a child, and kill it there."""
    reading, writing = os.pipe()
    started = time.perf_counter()
    child = os.fork()
    if child == 0:
        os.close(reading)
        _run_and_exit(stage, Path(out), arguments, kill or {}, writing)
    os.close(writing)
    if kill and "seconds" in kill:
        time.sleep(kill["seconds"])
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    seconds = time.perf_counter() - started
    with os.fdopen(reading) as pipe:
        said = pipe.read()
    answer = {"status": os.waitstatus_to_exitcode(status), "seconds": seconds}
    return {**answer, **(json.loads(said) if said else {})}


def _run_and_exit(stage: str, out: Path, arguments: dict[str, Any], kill: dict[str, Any], pipe: int) -> None:
    """The child's side; it never returns."""
    try:
        count = _count_events(out, kill.get("event"))
        if "bytes" in kill:  # the kernel writes up to this size, and then sends a signal that ends the process
            signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
            resource.setrlimit(resource.RLIMIT_FSIZE, (kill["bytes"], resource.RLIM_INFINITY))
        STAGES[stage](out, **arguments)
        os.write(pipe, json.dumps({"events": count[0]}).encode())
    except BaseException:
        os.write(pipe, json.dumps({"error": traceback.format_exc()}).encode())
        os._exit(1)
    os._exit(0)


def _count_events(out: Path, kill_at: int | None) -> list[int]:
    """Count what is done to files in the run folder; this process kills itself just before event number `kill_at`."""
    count = [0]

    def hook(event: str, arguments: Sequence[Any]) -> None:
        changes = event in ("os.rename", "os.remove", "os.truncate") or (event == "open" and arguments[1] != "r")
        if changes and str(arguments[0]).startswith(str(out)):
            count[0] += 1
            if count[0] == kill_at:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)
    return count


def _sample(out: Path, *, model: str, problems: str) -> None:
    sampling.sample(
        problems, model=model, out=out, n=PARTS, temperature=1.0, max_new_tokens=6, engine_options={"max_rows": 8}
    )


def _grade(out: Path, *, rollouts: str) -> None:
    # A grader of the user's own, so that pairs are judged in worker processes, which are left alone by a kill.
    grading.grade([Path(rollouts)], out=out, grader="operator:eq", workers=1)


def _score(out: Path, *, prm: str, rollouts: str) -> None:
    rewards = ("with-reference", "without-reference")
    scoring.score([Path(rollouts)], prm=ImplicitPRM.from_pretrained(prm), out=out, rewards=rewards, tokens=True)


def _select(out: Path, *, scores: str) -> None:
    selection.select([Path(scores)], out=out, n=[1, 2, 4])


def _evaluate(out: Path, *, scores: str) -> None:
    evaluation.evaluate([Path(scores)], out=out)


def _train(out: Path, *, model: str, rollouts: str) -> None:
    trainer = {
        "max_steps": 6, "save_steps": 2, "save_strategy": "steps", "logging_steps": 1, "learning_rate": 1e-3,
        "per_device_train_batch_size": 2, "gradient_accumulation_steps": 1, "use_cpu": True,
    }  # fmt: skip
    training.train([Path(rollouts)], model=model, out=out, trainer=trainer)


STAGES: dict[str, Callable[..., None]] = {
    "sample": _sample, "grade": _grade, "score": _score, "select": _select, "evaluate": _evaluate, "train": _train,
}  # fmt: skip

if __name__ == "__main__":
    main()
