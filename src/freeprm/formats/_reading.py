"""Which format a file is of, by its name or by its first row; and the different responses in files of rollouts."""

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
    """The format of this name, told its options.

    Raises:
        ConfigError: an unknown option, or one of the wrong type.
        PluginError: no format of this name.
    """
    format_: Format = plugins.built(FAMILY, name, [options or {}])
    return format_


def recognise(row: Row) -> list[str]:
    """Names of the formats that a row looks like one of.

    A row of ours is nothing else: what it carries along may be the columns of the format that it came from.
    """
    if load_format(OURS).recognises(row):
        return [OURS]
    return [name for name in plugins.names(FAMILY) if load_format(name).recognises(row)]


def formats_of(
    paths: Iterable[Path], *, columns: Mapping[str, str] | None = None, among: Collection[str] | None = None
) -> dict[Path, str]:
    """The one other format of each file that its first row looks like; without those that may be ours, or anything.

    Args:
        paths: as `read_rows` takes them.
        columns: name of a column in the format -> the name that it has in the rows.
        among: the formats to tell; all if not given.

    Raises:
        RecordError: a path does not exist, or is not readable as rows.
    """
    found = {path: _first_row(path, columns or {}) for path in paths}
    told = {path: recognise(first[1]) for path, first in found.items() if first is not None}
    return {
        path: names[0]
        for path, names in told.items()
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
    """Rollouts from files whose formats are named, or told from their first rows; for the rest see `read_rollouts`.

    Raises:
        DataError: no format, or several, recognise the rows.
        FreePRMError: as `read_rollouts`.
    """
    paths = list(paths)
    named = {path: format or _recognised_in(path, columns or {}) for path in paths}
    return read_rollouts(paths, columns=columns, on_bad=on_bad, formats=named, options=options)


def read_responses(
    inputs: Sequence[Path], *, columns: Mapping[str, str] | None, on_bad: OnBad
) -> tuple[list[Rollout], Counter[str]]:
    """Each response once, and the count of what was skipped; for the arguments see `read_rollouts`.

    Args:
        inputs: rows of ours, or of ProcessBench, which bring their own steps.

    Raises:
        RecordError: a broken record, or there is none.
        DataError: a sample stands for two different responses.
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
    """The one format that recognises the first row that can be read."""
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
    """The first row that can be read, under the format's names where it has the others."""
    readable = ((source, row) for source, row in read_rows(path) if not isinstance(row, RecordError))
    first = next(readable, None)
    return first and (first[0], renamed(first[1], columns, mapped(first[1], columns), ours=COLUMNS))
