"""Rows of Parquet files and of Arrow files as `Dataset.save_to_disk` writes them, a batch of rows in memory at a time.

A NaN in a column is null: pandas writes it where a column of numbers has a gap. Times become ISO text, and decimals
numbers.
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import date, time, timedelta
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

from freeprm.errors import DataError, NonFiniteError, RecordError
from freeprm.io.rows import Row, Source, finite, non_finite, written_whole

if TYPE_CHECKING:
    import pyarrow

BATCH = 1024
"""Rows in memory at a time."""


def read_parquet(path: Path) -> Iterator[tuple[Source, Row | RecordError]]:
    """The rows of a Parquet file, counted from 1.

    Raises:
        RecordError: it is not a Parquet file, or two columns have one name.
    """
    import pyarrow
    from pyarrow.parquet import ParquetFile

    try:
        with ParquetFile(path) as file:
            _refuse_repeated(path, file.schema_arrow.names)
            yield from _rows(path, file.iter_batches(batch_size=BATCH))
    except (pyarrow.ArrowException, OSError) as error:
        raise RecordError(f"{path}: not a readable Parquet file ({_first_line(error)})") from error


def read_arrow(path: Path) -> Iterator[tuple[Source, Row | RecordError]]:
    """The rows of an Arrow stream, counted from 1.

    Raises:
        RecordError: it is no Arrow stream, or two columns have one name.
    """
    import pyarrow

    try:
        with pyarrow.memory_map(str(path)) as file, pyarrow.ipc.open_stream(file) as stream:
            _refuse_repeated(path, stream.schema.names)
            yield from _rows(path, stream)
    except (pyarrow.ArrowException, OSError) as error:
        raise RecordError(f"{path}: not a readable Arrow stream ({_first_line(error)})") from error


def write_parquet(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write a Parquet file, whole or not at all; a column that a row lacks is null there.

    So is a table without a field, `{}`, in a column whose tables all lack it: Parquet cannot hold one.

    Raises:
        DataError: the values of a column have no type in common; names the column.
        NonFiniteError: a value is NaN or infinite.
    """
    import pyarrow
    from pyarrow import parquet

    rows = list(rows)
    for number, row in enumerate(rows, 1):
        if (found := non_finite(row)) is not None:
            raise NonFiniteError(f"{path}, row {number}: {found[0]}: is {found[1]}; expected a finite number")
    names = list(dict.fromkeys(name for row in rows for name in row))
    columns = {name: _column(path, name, [row.get(name) for row in rows]) for name in names}
    with written_whole(path) as partial:
        parquet.write_table(pyarrow.table(columns), partial)


def _rows(path: Path, batches: Iterable["pyarrow.RecordBatch"]) -> Iterator[tuple[Source, Row | RecordError]]:
    number = 0
    for batch in batches:
        for row in batch.to_pylist():
            number += 1
            yield Source(path, number), plain_row(row, Source(path, number))


def plain_row(row: Row, source: Source) -> Row | RecordError:
    """The row in the terms of JSON, or the error of what those do not have."""
    made: Row = {}
    for name, value in row.items():
        if isinstance(value, float) and math.isnan(value):
            made[name] = None
            continue
        try:
            made[name] = _json(value)
        except TypeError:
            return RecordError(
                f"{source}: {name}: holds {type(value).__name__}; expected text, numbers, lists or tables",
                reason=f"{name} holds what JSON cannot",
            )
    return finite(made, source)


def _json(value: Any) -> Any:
    if value is None or isinstance(value, str | bool | int | float):
        return value
    if isinstance(value, dict):
        return {key: _json(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_json(item) for item in value]
    if isinstance(value, Decimal):
        return int(value) if value == value.to_integral_value() else float(value)
    if isinstance(value, date | time):
        return value.isoformat()
    if isinstance(value, timedelta):
        return value.total_seconds()
    raise TypeError


def _column(path: Path, name: str, values: Sequence[Any]) -> "pyarrow.Array":
    import pyarrow

    try:
        column = pyarrow.array(values)
        return pyarrow.array(_without_empty(values)) if "struct<>" in str(column.type) else column
    except (pyarrow.ArrowException, OverflowError, UnicodeEncodeError) as error:
        raise DataError(
            f"{path}: {name}: its values have no type of Parquet in common ({_first_line(error)}); "
            "write .jsonl, which takes any"
        ) from error


def _without_empty(value: Any) -> Any:
    """The value with null for each table without a field, which Parquet cannot hold."""
    if isinstance(value, Mapping):
        return {name: _without_empty(item) for name, item in value.items()} or None
    if isinstance(value, list | tuple):
        return [_without_empty(item) for item in value]
    return value


def _refuse_repeated(path: Path, names: Sequence[str]) -> None:
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise RecordError(f"{path}: {', '.join(repeated)}: is there twice; expected columns with different names")


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]
