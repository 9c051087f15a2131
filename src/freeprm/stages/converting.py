"""Convert: rows of any format in, rows of any format out; what either format cannot hold is counted.

out.jsonl, .json, .csv, .parquet    that file, and FILE.manifest.json beside it: settings, hashes of the inputs, counts
out/                                a run folder with `rollouts.jsonl` (our own rows) or `<format>.jsonl`
"""

import json
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

from freeprm.errors import RunFolderError
from freeprm.formats._attaching import with_scores
from freeprm.formats._reading import load_format, read_records
from freeprm.formats.base import Format, Written
from freeprm.io.files import MANIFEST, content_hash, table_writer
from freeprm.io.manifest import difference, plain, versions
from freeprm.io.rollouts import OURS, Rollouts, rollout_row
from freeprm.io.rows import Row, write_json
from freeprm.io.runs import RunFolder
from freeprm.settings import ConvertSettings
from freeprm.stages.base import RunResult, stage
from freeprm.types import Cost, group_rollouts

STAGE = "convert"


@stage(ConvertSettings)
def convert(inputs: Sequence[Path], settings: ConvertSettings, out: Path) -> RunResult:
    """Write the inputs in another format; the same call on a finished output does nothing.

    `out` is a file by its ending, or else a run folder that the next stage takes.

    Raises:
        DataError: no format recognises the rows, or none can be written; says what they lack.
        RunFolderError: `out` is an input, or holds something else.
    """
    writer = load_format(settings.to, settings.write_options)
    if settings.source is not None:
        load_format(settings.source, settings.read_options)
    scores = [Path(file) for file in settings.scores]

    def make() -> _Made:
        read = read_records(
            inputs, format=settings.source, options=settings.read_options, columns=settings.columns,
            on_bad=settings.on_bad,
        )  # fmt: skip
        rollouts, scored = with_scores(
            read.rollouts, scores=scores, options=settings.score_options, on_bad=settings.on_bad
        )  # fmt: skip
        return _made(read._replace(rollouts=rollouts), writer, to=settings.to, scored=scored)

    write = _to_file if out.suffix and not out.is_dir() else _to_folder
    write(out, [*inputs, *scores], settings.deciding(), make)
    return RunResult.load(out)


class _Made(NamedTuple):
    rows: list[Row]
    counts: dict[str, Any]
    """With the format of each input."""


def _made(read: Rollouts, writer: Format, *, to: str, scored: Counter[str]) -> _Made:
    counts = Counter({"rows read": read.n_rows, "rollouts": len(read.rollouts)})
    counts.update({f"skipped: {reason}": count for reason, count in read.skipped.items()})
    counts.update(scored)
    if to == OURS:
        written = Written([rollout_row(rollout) for rollout in read.rollouts], Counter())
    else:
        groups = group_rollouts(read.rollouts)
        counts["skipped: again, with the scores of another scorer"] = len(read.rollouts) - sum(
            len(group.rollouts) for group in groups
        )
        written = writer.write(groups)
    counts["rows written"] = len(written.rows)
    counts.update({f"not written: {reason}": count for reason, count in written.skipped.items()})
    formats = Counter(f"files read as {name}" for name in read.formats.values())
    return _Made(written.rows, dict(+(counts + formats)))


def _to_folder(out: Path, inputs: Sequence[Path], settings: Mapping[str, Any], make: Callable[[], _Made]) -> None:
    with RunFolder(out, stage=STAGE, settings=settings, inputs=inputs) as run:
        if not run.complete:
            made = make()
            run.rewrite("rollouts" if settings["to"] == OURS else settings["to"].rpartition(":")[2], made.rows)
            run.finish(cost=Cost(), counts=made.counts)


def _to_file(out: Path, inputs: Sequence[Path], settings: Mapping[str, Any], make: Callable[[], _Made]) -> None:
    """A RunFolderError if the file is an input, or was not made by the same call."""
    write = table_writer(out)
    if any(out.resolve() == item.resolve() for item in inputs):
        raise RunFolderError(f"{out}: is an input and the output at once; choose another --out")
    identity = {
        "stage": STAGE, "settings": plain(settings), "inputs": {str(item): content_hash(item) for item in inputs},
    }  # fmt: skip
    beside = out.with_name(f"{out.name}.{MANIFEST}")
    if out.exists():
        _check_same(out, beside, identity)
        return
    started = time.perf_counter()
    made = make()
    out.parent.mkdir(parents=True, exist_ok=True)
    write(out, made.rows)
    cost = Cost(seconds=round(time.perf_counter() - started, 3))
    manifest = {
        **identity, "status": "complete", "counts": made.counts, "cost": asdict(cost), "versions": versions(),
    }  # fmt: skip
    write_json(beside, manifest)


def _check_same(out: Path, beside: Path, identity: Mapping[str, Any]) -> None:
    """A RunFolderError if the existing file was not made by the same call."""
    try:
        manifest: dict[str, Any] = json.loads(beside.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError) as error:
        raise RunFolderError(
            f"{out}: is there already, without a manifest that says what it is; choose another --out"
        ) from error
    for key, ours in identity.items():
        if found := difference(key, manifest.get(key), ours):
            raise RunFolderError(f"{out} holds something else: {found}. Remove it, or choose another --out")
