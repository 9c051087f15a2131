"""The format of a file, by name or inferred from its first row; and the distinct responses in files of rollouts."""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from freeprm.errors import DataError, RecordError
from freeprm.formats.base import Format
from freeprm.io import plugins
from freeprm.io.columns import COLUMNS
from freeprm.io.files import read_rows
from freeprm.io.rollouts import OURS, Rollouts, read_rollouts
from freeprm.io.rows import OnBad, Row, Source, mapped, renamed
from freeprm.types import Rollout

FAMILY = "formats"


def load_format(name: str, options: Mapping[str, Any] | None = None) -> Format:
    """The format of this name with its options."""
    format_: Format = plugins.built(FAMILY, name, [options or {}])
    return format_


def recognise(row: Row) -> list[str]:
    """Names of the formats that a row may have; a row of ours has no other, whatever columns it carries along."""
    if load_format(OURS).recognises(row):
        return [OURS]
    return [name for name in plugins.names(FAMILY) if load_format(name).recognises(row)]


def formats_of(
    paths: Iterable[Path], *, columns: Mapping[str, str] | None = None, among: Collection[str] | None = None
) -> dict[Path, str]:
    """The format of each file, inferred from its first row; without files of our rows, and of none or several formats.

    Args:
        paths: as `read_rows` takes them.
        columns: name of a column in the format -> its name in the rows.
        among: the formats to consider; by default all.

    Raises:
        RecordError: a path does not exist, or is not readable as rows.
    """
    first_rows = {path: _first_row(path, columns or {}) for path in paths}
    recognised = {path: recognise(first[1]) for path, first in first_rows.items() if first is not None}
    return {
        path: names[0]
        for path, names in recognised.items()
        if len(names) == 1 and names[0] != OURS and (among is None or names[0] in among)
    }


def read_records(
    paths: Iterable[Path],
    *,
    format: str | None = None,
    options: Mapping[str, Any] | None = None,
    columns: Mapping[str, str] | None = None,
    on_bad: OnBad = "raise",
) -> Rollouts:
    """`read_rollouts` of files whose format is named, or inferred from their first rows.

    Raises:
        DataError: no format, or several, recognise the rows.
    """
    paths = list(paths)
    named = {path: format or _recognised_in(path, columns or {}) for path in paths}
    return read_rollouts(paths, columns=columns, on_bad=on_bad, formats=named, options=options)


def read_responses(
    inputs: Sequence[Path], *, columns: Mapping[str, str] | None, on_bad: OnBad
) -> tuple[list[Rollout], Counter[str]]:
    """Each response once, and counts of skipped records, from rows of ours or of ProcessBench; see `read_rollouts`.

    Raises:
        RecordError: a broken record, or no record.
        DataError: two different responses have the same id.
    """
    read = read_rollouts(inputs, columns=columns, on_bad=on_bad, formats=formats_of(inputs, among=("processbench",)))
    counts = Counter({f"skipped: {reason}": n for reason, n in read.skipped.items()})
    first: dict[tuple[str, int], Rollout] = {}
    for rollout in read.rollouts:
        seen = first.setdefault((rollout.problem_id, rollout.sample_idx), rollout)
        if seen.response != rollout.response:
            raise DataError(
                f"problem {rollout.problem_id!r}, sample {rollout.sample_idx}: stands for two different responses in "
                "the input; score files that share problem_ids into separate folders"
            )
    counts["skipped: again, with the scores of another scorer"] = len(read.rollouts) - len(first)
    return list(first.values()), counts


def _recognised_in(path: Path, columns: Mapping[str, str]) -> str:
    """The only format that recognises the first readable row."""
    first = _first_row(path, columns)
    if first is None:
        raise RecordError(f"{path}: no usable record; expected rows in one of {', '.join(plugins.names(FAMILY))}")
    source, row = first
    found = recognise(row)
    if len(found) == 1:
        return found[0]
    if found:
        raise DataError(f"{source}: may be {' or '.join(found)}; say which with --from")
    raise DataError(
        f"{source}: no format recognises this row, which has {', '.join(row) or 'no column'}. There are "
        f"{', '.join(plugins.names(FAMILY))}: say which with --from, and rename columns with --map"
    )


def _first_row(path: Path, columns: Mapping[str, str]) -> tuple[Source, Row] | None:
    """The first readable row, with mapped columns under the format's names."""
    readable = ((source, row) for source, row in read_rows(path) if not isinstance(row, RecordError))
    first = next(readable, None)
    return first and (first[0], renamed(first[1], columns, mapped(first[1], columns), ours=COLUMNS))
