"""Files of any format to rollouts: the format by its name or by the first row, problems numbered on across rows."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from freeprm.errors import DataError, RecordError
from freeprm.formats.base import Format
from freeprm.io import plugins
from freeprm.io.columns import COLUMNS
from freeprm.io.files import read_rows
from freeprm.io.rollouts import OnBad, read_rollouts
from freeprm.io.rows import Row, Source, check_columns, mapped, renamed
from freeprm.types import Prompt, Rollout

FAMILY = "formats"
OURS = "rows"
"""The format of our own rows, in which nothing is lost."""


class Records(NamedTuple):
    """What was read, from what, and what was not."""

    rollouts: list[Rollout]
    skipped: Counter[str]
    """Broken records left out, by reason; empty unless skipping was asked for."""
    n_rows: int
    """Rows read, the broken ones among them."""
    formats: dict[Path, str]
    """The format of each input."""


def read_records(
    paths: Iterable[Path],
    *,
    format: str | None = None,
    options: Mapping[str, Any] | None = None,
    columns: Mapping[str, str] | None = None,
    on_bad: OnBad = "raise",
) -> Records:
    """Rollouts from files of any format in `freeprm.formats`.

    Samples of a problem are numbered on from row to row and from file to file, except in our own rows, which bring
    their numbers.

    Args:
        paths: files, folders or hub names, as `read_rows` takes them.
        format: name of the format; each input's own if not given, told from its first row.
        options: the format's fields, e.g. {"threshold": 0.5}.
        columns: name of a column in the format -> the name that it has in the rows.
        on_bad: stop at the first broken record, or leave it out and count it.

    Raises:
        ConfigError: an unknown option.
        DataError: no format, or several, recognise the rows.
        PluginError: no format of this name.
        RecordError: names the file, the line, the field, and what was expected.
    """
    check_columns(columns or {})
    paths = list(paths)
    named = {path: format or _recognised_in(path, columns or {}) for path in paths}
    foreign = _Reader(columns or {}, on_bad)
    own = [path for path in paths if named[path] == OURS]
    for path in paths:
        if path not in own:
            foreign.read(path, load_format(named[path], options))
    rollouts, skipped, n_rows = foreign.rollouts, foreign.skipped, foreign.n_rows
    if own:
        read = read_rollouts(own, columns=columns, on_bad=on_bad)
        rollouts, skipped = [*rollouts, *read.rollouts], skipped + read.skipped
        n_rows += len(read.rollouts) + read.skipped.total()
    if not rollouts:
        reasons = "; ".join(f"{count} skipped: {reason}" for reason, count in skipped.items())
        raise RecordError(f"{', '.join(map(str, paths))}: no usable record ({reasons or 'there is none at all'})")
    return Records(rollouts, skipped, n_rows, named)


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


def formats_of(path: Path, *, columns: Mapping[str, str]) -> list[str]:
    """Names of the formats that the first row of a file that can be read looks like one of; none where there is no row.

    Args:
        path: as `read_rows` takes it.
        columns: name of a column in the format -> the name that it has in the rows.

    Raises:
        RecordError: the path does not exist, or is not readable as rows.
    """
    first = _first_row(path)
    return [] if first is None else recognise(_renamed(first[1], columns))


def _recognised_in(path: Path, columns: Mapping[str, str]) -> str:
    """The one format that recognises the first row that can be read."""
    first = _first_row(path)
    if first is None:
        raise RecordError(f"{path}: no usable record; expected rows in one of {', '.join(plugins.names(FAMILY))}")
    source, row = first[0], _renamed(first[1], columns)
    found = recognise(row)
    if len(found) == 1:
        return found[0]
    if found:
        raise DataError(f"{source}: may be {' or '.join(found)}; say which with --from")
    raise DataError(
        f"{source}: no format recognises this row, which has {', '.join(row) or 'no column'}. There are "
        f"{', '.join(plugins.names(FAMILY))}: say which with --from, and rename columns with --map"
    )


def _first_row(path: Path) -> tuple[Source, Row] | None:
    return next(((source, row) for source, row in read_rows(path) if not isinstance(row, RecordError)), None)


def _renamed(row: Row, columns: Mapping[str, str]) -> Row:
    """The row under the format's names, where it has the others."""
    return renamed(row, columns, mapped(row, columns), ours=COLUMNS)


class _Reader:
    """Turns rows into rollouts, and remembers what stood in those before."""

    def __init__(self, columns: Mapping[str, str], on_bad: OnBad):
        self.rollouts: list[Rollout] = []
        self.skipped: Counter[str] = Counter()
        self.n_rows = 0
        self._columns = columns
        self._on_bad = on_bad
        self._next: Counter[tuple[str, str | None]] = Counter()
        self._prompts: dict[str, tuple[Prompt, Source]] = {}

    def read(self, path: Path, format_: Format) -> None:
        """The rollouts of a file, added to those before.

        Raises:
            RecordError: a broken record, unless those are skipped.
        """
        for source, row in read_rows(path):
            self.n_rows += 1
            try:
                if isinstance(row, RecordError):
                    raise row
                self._add(list(format_.read(_renamed(row, self._columns), source)), source)
            except RecordError as error:
                if self._on_bad == "raise":
                    raise
                self.skipped[error.reason] += 1

    def _add(self, made: Sequence[Rollout], source: Source) -> None:
        for rollout in made:
            prompt, where = self._prompts.setdefault(rollout.problem_id, (rollout.prompt, source))
            if prompt != rollout.prompt:
                raise RecordError(
                    f"{source}: is another prompt than {where} has for problem {rollout.problem_id!r}; expected one "
                    "prompt a problem",
                    reason="another prompt under the same problem_id",
                )
        first = {key: self._next[key] for key in map(_key, made)}
        for rollout in made:
            index = first[_key(rollout)] + rollout.sample_idx
            self.rollouts.append(_numbered(rollout, index))
            self._next[_key(rollout)] = max(self._next[_key(rollout)], index + 1)


def _key(rollout: Rollout) -> tuple[str, str | None]:
    return rollout.problem_id, rollout.scorer


def _numbered(rollout: Rollout, index: int) -> Rollout:
    return rollout if index == rollout.sample_idx else replace(rollout, sample_idx=index)
