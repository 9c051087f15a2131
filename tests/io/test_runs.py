"""Run folders: resumed by the same run, refused to another, held by one process, and never short of a finished row."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from freeprm.errors import NonFiniteError, RecordError, RunFolderError
from freeprm.io.manifest import read_cost
from freeprm.io.rows import write_json, write_rows
from freeprm.io.runs import RunFolder, read_manifest, read_metrics
from freeprm.types import Cost, Metric
from patience import PATIENCE


def folder(path: Path, *, stage: str = "grade", settings: dict[str, Any] | None = None, inputs: tuple[Path, ...] = ()):
    return RunFolder(path, stage=stage, settings=settings if settings is not None else {"beta": 0.05}, inputs=inputs)


def manifest(path: Path) -> dict[str, Any]:
    return read_manifest(path) or {}


@contextmanager
def another_process(code: str) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


def test_a_run_is_running_until_it_finishes(tmp_path: Path):
    with folder(tmp_path / "a") as run:
        run.append("rows", [{"x": 1}])
        assert manifest(run.path)["status"] == "running"
        assert not run.complete
        cost = run.finish(cost=Cost(scored_tokens=7), counts={"rows": 1})
    made = manifest(tmp_path / "a")
    assert (made["stage"], made["status"], made["counts"]) == ("grade", "complete", {"rows": 1})
    assert read_cost(made["cost"]) == cost
    assert cost.scored_tokens == 7
    assert made["versions"]["freeprm"]
    assert made["settings"] == {"beta": 0.05}


def test_the_same_run_goes_on_and_sees_the_rows_there_are(tmp_path: Path):
    with folder(tmp_path / "a") as run:
        run.append("rows", [{"x": 1}, {"x": 2}])
        assert run.rows("others") == []
    with folder(tmp_path / "a") as run:
        assert run.rows("rows") == [{"x": 1}, {"x": 2}]
        run.append("rows", [{"x": 3}])
        run.finish(cost=Cost(), counts={})
    with folder(tmp_path / "a") as run:
        assert run.complete
        assert len(run.rows("rows")) == 3


def test_the_seconds_of_all_sittings_are_added_up(tmp_path: Path):
    for _ in range(2):
        with folder(tmp_path / "a") as run:
            run.append("rows", [{"x": 1}])
            time.sleep(0.1)
    with folder(tmp_path / "a") as run:
        assert 0.2 <= run.finish(cost=Cost(), counts={}).seconds < PATIENCE


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"settings": {"beta": 0.1}}, r"its settings\.beta is 0\.05, not 0\.1\. Give the same command"),
        ({"settings": {"beta": 0.05, "seed": 1}}, r"its settings\.seed is None, not 1"),
        ({"settings": {}}, r"its settings\.beta is 0\.05, not None"),
        ({"stage": "score"}, "its stage is 'grade', not 'score'"),
    ],
)
def test_another_run_is_refused_by_the_difference(tmp_path: Path, other: dict[str, Any], message: str):
    with folder(tmp_path / "a") as run:
        run.append("rows", [{"x": 1}])
    with pytest.raises(RunFolderError, match=message), folder(tmp_path / "a", **other):
        pass
    with folder(tmp_path / "a"):
        pass  # the refusal let go of the lock


def test_a_difference_deep_in_the_settings_is_named_alone(tmp_path: Path):
    nested: dict[str, Any] = {"trainer": {"learning_rate": 1e-6, "epochs": 1}, "n": (1, 4), "dev": Path("x")}
    with folder(tmp_path / "a", settings=nested) as run:
        run.append("rows", [{}])
    with folder(tmp_path / "a", settings=nested):
        pass  # tuples and paths compare equal to what JSON made of them
    other = {**nested, "trainer": {"learning_rate": 2e-6, "epochs": 1}}
    with (
        pytest.raises(RunFolderError, match=r"its settings\.trainer\.learning_rate is 1e-06, not 2e-06"),
        folder(tmp_path / "a", settings=other),
    ):
        pass


def test_an_input_that_changed_is_refused_and_one_that_moved_is_not(tmp_path: Path):
    write_rows(tmp_path / "in.jsonl", [{"x": 1}])
    with folder(tmp_path / "a", inputs=(tmp_path / "in.jsonl",)) as run:
        run.append("rows", [{"x": 1}])
    moved = (tmp_path / "in.jsonl").rename(tmp_path / "moved.jsonl")
    with folder(tmp_path / "a", inputs=(moved,)):
        pass
    write_rows(tmp_path / "in.jsonl", [{"x": 2}])
    with (
        pytest.raises(RunFolderError, match=r"in\.jsonl has changed since"),
        folder(tmp_path / "a", inputs=(tmp_path / "in.jsonl",)),
    ):
        pass
    with pytest.raises(RunFolderError, match=r"it was made from .*in\.jsonl, not from nothing"), folder(tmp_path / "a"):
        pass


def test_a_folder_given_as_input_is_known_by_its_rows_alone(tmp_path: Path):
    (tmp_path / "in").mkdir()
    write_rows(tmp_path / "in" / "rows.jsonl", [{"x": 1}])
    with folder(tmp_path / "a", inputs=(tmp_path / "in",)) as run:
        run.append("rows", [{"x": 1}])
    write_json(tmp_path / "in" / "metrics.json", [])
    with folder(tmp_path / "a", inputs=(tmp_path / "in",)):
        pass
    write_rows(tmp_path / "in" / "more.jsonl", [{"x": 1}])
    with pytest.raises(RunFolderError, match="has changed since"), folder(tmp_path / "a", inputs=(tmp_path / "in",)):
        pass


def test_an_input_that_is_not_there_or_is_the_output_is_refused_before_anything_is_made(tmp_path: Path):
    with pytest.raises(RecordError, match=r"no\.jsonl: no such file or folder"):
        folder(tmp_path / "a", inputs=(tmp_path / "no.jsonl",))
    with pytest.raises(RunFolderError, match="is an input and the output at once"):
        folder(tmp_path, inputs=(tmp_path / "x" / "..",))
    assert list(tmp_path.iterdir()) == []


def test_a_run_that_failed_before_it_made_anything_gives_the_folder_up(tmp_path: Path):
    with pytest.raises(RecordError), folder(tmp_path / "a"):
        raise RecordError("in.jsonl:3: correct: is 'yes'")
    with folder(tmp_path / "a", settings={"beta": 1.0}) as run:  # so the mended command may differ
        run.append("rows", [{"x": 1}])
    with pytest.raises(RunFolderError), folder(tmp_path / "a"):
        pass


def test_a_folder_of_other_files_is_left_alone(tmp_path: Path):
    mine = tmp_path / "mine.jsonl"
    mine.write_text('{"x": 1}\n{"no end": 2}', encoding="utf-8")
    with pytest.raises(RunFolderError, match=r"files that are not of a run of freeprm, e\.g\. mine\.jsonl"):
        folder(tmp_path).__enter__()
    assert mine.read_text(encoding="utf-8") == '{"x": 1}\n{"no end": 2}'


@pytest.mark.parametrize("text", ["{", "[]", '{"name": "an extension"}'])
def test_a_manifest_of_another_program_is_refused(tmp_path: Path, text: str):
    (tmp_path / "manifest.json").write_text(text, encoding="utf-8")
    with pytest.raises(RunFolderError, match=r"manifest\.json: not .*; choose another --out"), folder(tmp_path):
        pass


def test_a_path_that_cannot_be_a_folder_is_refused(tmp_path: Path):
    (tmp_path / "file").touch()
    for path in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(RunFolderError, match="cannot be written"), folder(path):
            pass


def test_two_runs_in_one_process_exclude_each_other(tmp_path: Path):
    with folder(tmp_path / "a"), pytest.raises(RunFolderError, match="another process is writing here"):
        folder(tmp_path / "a").__enter__()


def test_a_second_process_is_kept_out_until_the_first_has_ended(tmp_path: Path):
    hold = f"""
import sys, time
from pathlib import Path
from freeprm.io.runs import RunFolder
with RunFolder(Path({str(tmp_path / "a")!r}), stage="grade", settings={{"beta": 0.05}}):
    print("held", flush=True)
    time.sleep(60)
"""
    with another_process(hold) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        with pytest.raises(RunFolderError, match="another process is writing here"), folder(tmp_path / "a"):
            pass
    with folder(tmp_path / "a"):
        pass


def test_a_torn_last_row_is_cut_off_and_reported(tmp_path: Path):
    with folder(tmp_path / "a") as run:
        run.append("rows", [{"x": 1}, {"x": 2}])
    with (tmp_path / "a" / "rows.jsonl").open("ab") as file:
        file.write(b'{"x": 3, "text": "' + b"long " * 50_000)  # longer than the block that is searched at a time
    run = folder(tmp_path / "a")
    with pytest.warns(UserWarning, match=r"rows\.jsonl: the last row was cut off"):
        run.__enter__()
    assert run.repaired == ["rows.jsonl"]
    assert run.rows("rows") == [{"x": 1}, {"x": 2}]
    run.__exit__(None, None, None)
    with folder(tmp_path / "a") as again:
        assert again.repaired == []


def test_a_file_of_nothing_but_a_torn_row_becomes_empty(tmp_path: Path):
    with folder(tmp_path / "a") as run:
        run.append("rows", [])
    (tmp_path / "a" / "rows.jsonl").write_bytes(b'{"x"')
    with pytest.warns(UserWarning, match="cut off"), folder(tmp_path / "a") as run:
        assert run.rows("rows") == []


def test_a_finished_runs_rows_are_not_repaired_but_refused(tmp_path: Path):
    with folder(tmp_path / "a") as run:
        run.append("rows", [{"x": 1}])
        run.finish(cost=Cost(), counts={})
    (tmp_path / "a" / "rows.jsonl").write_bytes(b'{"x": 1}\n{"x"')
    with folder(tmp_path / "a") as run, pytest.raises(RecordError, match="cut while it was written"):
        run.rows("rows")


WRITER = """
import sys
from pathlib import Path
from freeprm.io.runs import RunFolder
with RunFolder(Path(sys.argv[1]), stage="grade", settings={"beta": 0.05}) as run:
    for number in range(len(run.rows("rows")), 100_000):
        run.append("rows", [{"number": number, "text": "x" * 20_000}])
        print(number, flush=True)
"""


@pytest.mark.parametrize("kill_after", [1, 7, 30])
def test_a_run_killed_while_it_appends_loses_no_finished_row(tmp_path: Path, kill_after: int):
    command = [sys.executable, "-c", WRITER, str(tmp_path / "a")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        finished = [int(process.stdout.readline()) for _ in range(kill_after)]
        os.kill(process.pid, signal.SIGKILL)
        finished += [int(line) for line in process.stdout]
    with folder(tmp_path / "a") as run:
        numbers = [row["number"] for row in run.rows("rows")]
    assert numbers == list(range(len(numbers)))
    assert len(numbers) - 1 in (finished[-1], finished[-1] + 1)  # a row may be on disk before it was said to be


def test_a_run_killed_before_its_first_row_can_be_given_again(tmp_path: Path):
    with folder(tmp_path / "a"):
        (tmp_path / "a" / "manifest.json.partial").write_text("{", encoding="utf-8")
        (tmp_path / "a" / "manifest.json").unlink()  # as a kill leaves it between the two
    with folder(tmp_path / "a") as run:
        run.append("rows", [{"x": 1}])


@pytest.mark.parametrize(("field", "value"), [("value", float("nan")), ("high", float("inf"))])
def test_a_metric_that_is_not_finite_is_refused_by_name(tmp_path: Path, field: str, value: float):
    metric = Metric(
        **{"metric": "accuracy", "value": 0.5, "count": 3, "scorer": "ce", "selector": "majority", field: value}
    )
    with folder(tmp_path / "a") as run:
        with pytest.raises(NonFiniteError, match=rf"metric accuracy \(ce, majority\): {field} is (nan|inf), over 3"):
            run.write_metrics([metric])
        assert not (tmp_path / "a" / "metrics.json").exists()


def test_metrics_come_back_as_they_were_written_with_absent_fields_null(tmp_path: Path):
    metrics = [Metric(metric="accuracy", value=0.5, low=0.4, high=0.6, count=9, selector="majority", n=4, seed=0)]
    with folder(tmp_path / "a") as run:
        run.write_metrics(metrics)
    assert read_metrics(tmp_path / "a") == metrics
    (row,) = json.loads((tmp_path / "a" / "metrics.json").read_text(encoding="utf-8"))
    assert row == {
        "metric": "accuracy", "value": 0.5, "low": 0.4, "high": 0.6, "count": 9, "scorer": None, "selector": "majority",
        "n": 4, "seed": 0, "group": None, "weighting": None,
    }  # fmt: skip
    with pytest.raises(RunFolderError, match=r"no metrics\.json"):
        read_metrics(tmp_path)


def test_a_rewritten_file_is_the_new_rows_alone(tmp_path: Path):
    with folder(tmp_path / "a") as run:
        run.rewrite("rows", [{"x": 1}])
        run.rewrite("rows", [{"x": 2}])
        assert run.rows("rows") == [{"x": 2}]
    assert not list((tmp_path / "a").glob("*.partial"))


def test_sittings_are_listed_with_their_time_and_what_was_repaired(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("freeprm.io.manifest.SAVE_SECONDS", 0.0)
    process = os.fork()
    if process == 0:  # a session that is killed
        folder(tmp_path / "a").__enter__().append("rows", [{"x": 1}])
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(process, 0)
    with (tmp_path / "a" / "rows.jsonl").open("ab") as file:
        file.write(b'{"x"')
    run = folder(tmp_path / "a")
    with pytest.warns(UserWarning, match="cut off"):
        run.__enter__()
    run.append("rows", [{"x": 2}])
    cost = run.finish(cost=Cost(), counts={})
    run.__exit__(None, None, None)
    first, second = manifest(tmp_path / "a")["sessions"]
    assert first["seconds"] > 0  # written down when the row was appended
    assert second["repaired"] == ["rows.jsonl"]
    assert cost.seconds == pytest.approx(first["seconds"] + second["seconds"])


def test_a_run_killed_before_it_made_anything_gives_way_to_another(tmp_path: Path):
    process = os.fork()
    if process == 0:
        folder(tmp_path / "a").__enter__()
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(process, 0)
    assert manifest(tmp_path / "a")["status"] == "running"
    with folder(tmp_path / "a", settings={"beta": 0.1}) as run:
        run.append("rows", [{"x": 1}])
    assert manifest(tmp_path / "a")["settings"] == {"beta": 0.1}
    with pytest.raises(RunFolderError, match="holds another run"), folder(tmp_path / "a"):
        pass


def test_what_was_noted_of_finished_parts_is_kept_until_the_run_is_complete(tmp_path: Path):
    with folder(tmp_path / "a") as run:
        assert run.parts() == []
        run.append("rows", [{"x": 1}])
        run.log_part({"part": 0, "tokens": 7})
    with (tmp_path / "a" / "parts.log").open("ab") as file:
        file.write(b'{"part": 1, "tok')
    with folder(tmp_path / "a") as run:
        assert run.parts() == [{"part": 0, "tokens": 7}]
        run.finish(cost=Cost(), counts={})
    assert not (tmp_path / "a" / "parts.log").exists()


def test_what_a_killed_rewrite_left_is_removed(tmp_path: Path):
    with folder(tmp_path / "a") as run:
        run.append("rows", [{"x": 1}])
    for name in ("rows.jsonl.partial", "report.html.partial", ".tmpAbCdEf"):  # the last is safetensors' own
        (tmp_path / "a" / name).write_bytes(b"half")
    with folder(tmp_path / "a") as run:
        assert run.rows("rows") == [{"x": 1}]
    assert {file.name for file in (tmp_path / "a").iterdir()} == {"rows.jsonl", "manifest.json", ".lock"}


def test_all_that_a_stage_wrote_is_on_disk_before_its_run_is_complete(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    synced: list[Path] = []
    monkeypatch.setattr("freeprm.io.runs.sync_path", synced.append)
    monkeypatch.setattr("freeprm.io.rows.sync_path", synced.append)
    with folder(tmp_path / "a") as run:
        (tmp_path / "a" / "model.safetensors").write_bytes(b"weights")
        run.finish(cost=Cost(), counts={})
    assert tmp_path / "a" / "model.safetensors" in synced
    assert synced[-1] == tmp_path / "a" / "manifest.json.partial"  # whose rename completes the run


FILLER = """
import resource, sys
from pathlib import Path
from freeprm.errors import RunFolderError
from freeprm.io.runs import RunFolder
from freeprm.types import Cost
if limit := int(sys.argv[2]):
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
try:
    with RunFolder(Path(sys.argv[1]), stage="grade", settings={}) as run:
        for number in range(len(run.rows("rows")), 100):
            run.append("rows", [{"number": number, "text": "x" * 5000}])
        run.rewrite("rows", run.rows("rows"))
        run.finish(cost=Cost(), counts={})
except RunFolderError as error:
    print(error)
"""


def fill(path: Path, *, limit: int = 0) -> str:
    command = [sys.executable, "-W", "error", "-c", FILLER, str(path), str(limit)]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def test_a_file_that_may_not_grow_stops_the_run_with_whole_rows_and_the_same_command_goes_on(tmp_path: Path):
    said = fill(tmp_path / "a", limit=99_999)
    assert said.startswith(f"{tmp_path}/a: cannot be written (File too large). What was finished before is kept")
    assert "give the same command again" in said
    rows = (tmp_path / "a" / "rows.jsonl").read_bytes()
    assert (rows.count(b"\n"), rows[-1:]) == (19, b"\n")  # of 5,0xx bytes each; the torn one was taken back
    assert fill(tmp_path / "a") == ""
    assert manifest(tmp_path / "a")["status"] == "complete"
    assert (tmp_path / "a" / "rows.jsonl").read_bytes().startswith(rows)


def test_a_full_disk_stops_the_run_with_whole_rows_and_the_same_command_goes_on(tmp_path: Path):
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=400k", "tmpfs", str(disk)], capture_output=True)
    if mounted.returncode:
        pytest.skip("a small disk can be mounted by root only")
    try:
        assert "cannot be written (No space left on device)" in fill(disk / "a")
        rows = (disk / "a" / "rows.jsonl").read_bytes()
        assert rows.endswith(b"\n")
        assert 60 < rows.count(b"\n") < 80  # 400 KiB of rows of 5,0xx bytes
        assert "cannot be written" in fill(disk / "a")  # still full
        subprocess.run(["mount", "-o", "remount,size=1400k", str(disk)], check=True)
        assert fill(disk / "a") == ""
        assert (disk / "a" / "rows.jsonl").read_bytes().startswith(rows)
        assert manifest(disk / "a")["status"] == "complete"
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_a_complete_run_that_is_added_to_keeps_the_time_of_its_first_session(tmp_path: Path):
    with RunFolder(tmp_path / "run", stage="x", settings={}) as run:
        run.append("rows", [{"a": 1}])
        run.finish(cost=Cost(), counts={})
    with RunFolder(tmp_path / "run", stage="x", settings={}) as run:
        run.reopen()
        assert not run.complete
        run.finish(cost=Cost(), counts={})
        assert run.complete
    assert len(read_manifest(tmp_path / "run")["sessions"]) == 2
