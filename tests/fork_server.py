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
from functools import partial
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

import freeprm.datasets.rows
import freeprm.engines.hf
import freeprm.executors.local
import freeprm.io.config  # noqa: F401  # what stages find by name, imported before the first fork
from freeprm.core.ledger import CONVENTIONS
from freeprm.experiments import demo
from freeprm.experiments.bills import read_methods
from freeprm.experiments.cost_report import cost_report
from freeprm.models import reference_logprobs
from freeprm.scorers.implicit import ImplicitPRM
from freeprm.settings import DemoSettings
from freeprm.stages import evaluation, grading, sampling, scoring, selection, training

PARTS = 4  # rows appended at a time: small, so that there are many moments to be killed at
KILLED_BY = (signal.SIGKILL, signal.SIGXFSZ)
DEMO_TRAINING = ("stored_reference=false", "trainer.per_device_train_batch_size=2", "trainer.save_steps=1")


def main() -> None:
    """Obey orders until there are no more.

    An order is {"stage", "out", "arguments", "kill"}; kill is None, {"seconds": s}, {"event": k}, {"bytes": n}, or
    both of these: no file may have more than n bytes from the k-th event on. With "under" events are counted there
    alone. The answer has `status` (minus the signal where it was killed), `seconds`, and `events` where it was not: the
    file of each, in the folder.
    """
    TypeAdapter(int)  # imports the rest of pydantic
    sampling._SYNC_SECONDS = 0.0
    grading._FLUSH_ROWS = scoring.BATCH = reference_logprobs.CHUNK = PARTS
    # The demo as it is, but with the reference computed, and checkpoints; in one process, which is the one that dies.
    demo.sample = partial(sampling.sample, workers=1)
    demo.load_settings = partial(demo.load_settings, assignments=DEMO_TRAINING)
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
        signal.signal(signal.SIGXFSZ, signal.SIG_DFL)  # which Python ignores
        events = _noted_events(out, kill, partial(_die, kill.get("bytes")))
        if "bytes" in kill and "event" not in kill:
            _die(kill["bytes"])
        STAGES[stage](out, **arguments)
        os.write(pipe, json.dumps({"events": events}).encode())
    except BaseException:
        os.write(pipe, json.dumps({"error": traceback.format_exc()}).encode())
        os._exit(1)
    os._exit(0)


def _die(n_bytes: int | None) -> None:
    """Kill this process; or have the kernel do it, once it has written up to this size of any file."""
    if n_bytes is None:
        os.kill(os.getpid(), signal.SIGKILL)
    else:
        resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, resource.RLIM_INFINITY))


def _noted_events(out: Path, kill: dict[str, Any], end: Callable[[], None]) -> list[str]:
    """Note what is done to files in the run folder; `end` is called just before the event that `kill` says."""
    events: list[str] = []
    n_before, under = 0, kill.get("under", "")

    def hook(event: str, arguments: Sequence[Any]) -> None:
        nonlocal n_before
        changes = event in ("os.rename", "os.remove", "os.truncate", "os.mkdir") or (
            event == "open" and arguments[1] != "r"
        )
        if changes and str(arguments[0]).startswith(str(out)):
            events.append(os.path.relpath(arguments[0], out))
            if events[-1].startswith(under):
                n_before += 1
                if n_before == kill.get("event"):
                    end()

    sys.addaudithook(hook)
    return events


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


def _cost(out: Path, *, run: str) -> None:
    cost_report(read_methods([f"ce={run}"]), list(CONVENTIONS.values())).write(out, command="freeprm cost")


def _demo(out: Path) -> None:
    settings = DemoSettings(
        solver="small", train_problems=6, train_samples=4, dev_problems=3, test_problems=4, test_samples=4
    )
    demo.demo(out=out, settings=settings, command="freeprm demo")


STAGES: dict[str, Callable[..., None]] = {
    "sample": _sample, "grade": _grade, "score": _score, "select": _select, "evaluate": _evaluate, "train": _train,
    "cost": _cost, "demo": _demo,
}  # fmt: skip

if __name__ == "__main__":
    main()
