"""Convert: rows of any format in, rows of any format out, with everything counted that one of them cannot say.

out.jsonl, .json, .csv, .parquet    that file, and FILE.manifest.json beside it: settings, hashes of the inputs, counts
out/                                a run folder with `rollouts.jsonl` (our own rows) or `<format>.jsonl`
"""

import json
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from freeprm.errors import RunFolderError
from freeprm.formats._reading import load_format, read_records
from freeprm.formats._scored import with_scores
from freeprm.formats.base import Format, Written
from freeprm.io.files import MANIFEST, content_hash, table_writer
from freeprm.io.manifest import difference, plain, versions
from freeprm.io.rollouts import OURS, Rollouts, rollout_row
from freeprm.io.rows import OnBad, Row, write_json
from freeprm.io.runs import RunFolder, read_manifest
from freeprm.types import Cost, group_rollouts

STAGE = "convert"


@dataclass(frozen=True, slots=True, kw_only=True)
class Converted:
    """What converting made."""

    path: Path
    """The file, or the run folder."""
    formats: Mapping[str, str]
    """The format of each input."""
    counts: Mapping[str, int]
    """Rows read, rollouts, rows written, and what was skipped, by reason."""


def convert(
    inputs: Sequence[Path],
    *,
    out: Path,
    source: str | None = None,
    to: str = OURS,
    columns: Mapping[str, str] | None = None,
    on_bad: OnBad = "raise",
    read_options: Mapping[str, Any] | None = None,
    write_options: Mapping[str, Any] | None = None,
    scores: Sequence[Path] = (),
    score_options: Mapping[str, Any] | None = None,
) -> Converted:
    """Write the inputs in another format; the same call on what it has made makes it no second time.

    Args:
        inputs: files, folders or hub names, of the same format or of several.
        out: a file by its ending, or else a run folder that the next stage takes.
        source: name of the inputs' format; each one's own if not given, told from its first row.
        to: name of the format to write.
        columns: name of a column in the inputs' format -> the name that it has in the rows.
        on_bad: stop at the first broken record, or leave it out and count it.
        read_options: fields of the inputs' format.
        write_options: fields of the format to write.
        scores: files of a server's answers on the inputs, whose scores are written along.
        score_options: what their numbers mean, or in which column of the inputs such outputs are; fields of
            `formats.attaching.ScoreOptions`.

    Raises:
        DataError: no format recognises the rows, or nothing can be written of them; says what they lack.
        RunFolderError: `out` is an input, or holds something else.
        FreePRMError: see the errors of records, settings and plug-ins.
    """
    settings = {
        "source": source, "to": to, "columns": dict(columns or {}), "on_bad": on_bad,
        "read_options": dict(read_options or {}), "write_options": dict(write_options or {}),
        "scores": list(scores), "score_options": dict(score_options or {}),
    }  # fmt: skip
    writer = load_format(to, write_options)
    if source is not None:
        load_format(source, read_options)

    def make() -> _Made:
        read = read_records(inputs, format=source, options=read_options, columns=columns, on_bad=on_bad)
        rollouts, scored = with_scores(read.rollouts, scores=scores, options=score_options, on_bad=on_bad)
        return _made(read._replace(rollouts=rollouts), writer, to=to, scored=scored)

    to_file = out.suffix and not out.is_dir()
    hashed = [*inputs, *scores]
    manifest = _to_file(out, hashed, settings, make) if to_file else _to_folder(out, hashed, settings, make)
    return Converted(path=out, formats=manifest["counts"]["formats"], counts=manifest["counts"]["counted"])


class _Made(NamedTuple):
    rows: list[Row]
    counts: dict[str, Any]
    """As the manifest keeps them: what was counted, and the format of each input."""


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
    return _Made(written.rows, {"counted": dict(+counts), "formats": {str(k): v for k, v in read.formats.items()}})


def _to_folder(
    out: Path, inputs: Sequence[Path], settings: Mapping[str, Any], make: Callable[[], _Made]
) -> Mapping[str, Any]:
    with RunFolder(out, stage=STAGE, settings=settings, inputs=inputs) as run:
        if not run.complete:
            made = make()
            run.rewrite("rollouts" if settings["to"] == OURS else settings["to"].rpartition(":")[2], made.rows)
            run.finish(cost=Cost(), counts=made.counts)
    return read_manifest(out) or {}


def _to_file(
    out: Path, inputs: Sequence[Path], settings: Mapping[str, Any], make: Callable[[], _Made]
) -> Mapping[str, Any]:
    """Raises: RunFolderError, if the file is an input, or is not what the same call has made."""
    write = table_writer(out)
    if any(out.resolve() == item.resolve() for item in inputs):
        raise RunFolderError(f"{out}: is an input and the output at once; choose another --out")
    identity = {
        "stage": STAGE, "settings": plain(settings), "inputs": {str(item): content_hash(item) for item in inputs},
    }  # fmt: skip
    beside = out.with_name(f"{out.name}.{MANIFEST}")
    if out.exists():
        return _same(out, beside, identity)
    started = time.perf_counter()
    made = make()
    out.parent.mkdir(parents=True, exist_ok=True)
    write(out, made.rows)
    manifest = {
        **identity, "status": "complete", "counts": made.counts, "versions": versions(),
        "seconds": round(time.perf_counter() - started, 3),
    }  # fmt: skip
    write_json(beside, manifest)
    return manifest


def _same(out: Path, beside: Path, identity: Mapping[str, Any]) -> Mapping[str, Any]:
    """The manifest of a file that stands there already."""
    try:
        manifest: dict[str, Any] = json.loads(beside.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError) as error:
        raise RunFolderError(
            f"{out}: is there already, without a manifest that says what it is; choose another --out"
        ) from error
    for key, ours in identity.items():
        if found := difference(key, manifest.get(key), ours):
            raise RunFolderError(f"{out} holds something else: {found}. Remove it, or choose another --out")
    return manifest
