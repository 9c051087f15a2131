"""Rows of Arrow tables: Parquet files, Arrow files as `Dataset.save_to_disk` writes them, and data sets of a hub.

One batch of rows is in memory at a time. NaN in a column is null: pandas writes it for a gap in a column of numbers.
Times become ISO text, and decimals numbers.

A data set on the Hugging Face hub, or a local copy of one, is `hf:owner/name[:config][@revision][#split]`, accepted
wherever a file is. `hf:FOLDER#split` takes one split of a local folder in a hub's layout.
"""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import date, time, timedelta
from decimal import Decimal
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from freeprm.errors import DataError, RecordError, needs_extra
from freeprm.io.rows import Row, Rows, Source, finite, refuse_non_finite, written_whole

if TYPE_CHECKING:
    import pyarrow

    from datasets import Dataset

BATCH = 1024
"""Rows in memory at a time."""
_PREFIX = "hf:"
_NAME = re.compile(r"hf:(?P<name>[^:@#]+)(?::(?P<config>[^:@#]+))?(?:@(?P<revision>[^@#]+))?(?:#(?P<split>.+))?")


def read_parquet(path: Path) -> Rows:
    """The rows of a Parquet file, counted from 1.

    Raises:
        RecordError: it is not a Parquet file, or two columns have one name.
        MissingExtraError: pyarrow is not installed; so for the others here.
    """
    with needs_extra("datasets", f"{path}: a Parquet file"):
        import pyarrow
        from pyarrow.parquet import ParquetFile

    try:
        with ParquetFile(path) as file:
            _refuse_repeated(path, file.schema_arrow.names)
            yield from _rows(path, file.iter_batches(batch_size=BATCH))
    except (pyarrow.ArrowException, OSError) as error:
        raise RecordError(f"{path}: not a readable Parquet file ({_first_line(error)})") from error


def read_arrow(path: Path) -> Rows:
    """The rows of an Arrow stream, counted from 1.

    Raises:
        RecordError: it is no Arrow stream, or two columns have one name.
    """
    with needs_extra("datasets", f"{path}: an Arrow stream"):
        import pyarrow

    try:
        with pyarrow.memory_map(str(path)) as file, pyarrow.ipc.open_stream(file) as stream:
            _refuse_repeated(path, stream.schema.names)
            yield from _rows(path, stream)
    except (pyarrow.ArrowException, OSError) as error:
        raise RecordError(f"{path}: not a readable Arrow stream ({_first_line(error)})") from error


def write_parquet(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write a Parquet file atomically; missing columns are null, and so is `{}` in a column of empty tables.

    Raises:
        DataError: the values of a column have no type in common; names the column.
        NonFiniteError: a value is NaN or infinite.
    """
    with needs_extra("datasets", f"{path}: a Parquet file"):
        import pyarrow
        from pyarrow import parquet

    rows = list(rows)
    refuse_non_finite(rows, path)
    names = list(dict.fromkeys(name for row in rows for name in row))
    columns = {name: _column(path, name, [row.get(name) for row in rows]) for name in names}
    with written_whole(path) as partial:
        parquet.write_table(pyarrow.table(columns), partial)


class HubName(NamedTuple):
    """The parts of `hf:owner/name[:config][@revision][#split]`."""

    name: str
    config: str | None
    revision: str | None
    split: str | None


def is_hub_name(path: Path) -> bool:
    """Whether a path is the name of a data set on a hub."""
    return str(path).startswith(_PREFIX)


def parse_hub_name(path: Path) -> HubName:
    """A hub name's parts; a RecordError if it has another form."""
    found = _NAME.fullmatch(str(path))
    if not found:
        raise RecordError(f"{path}: expected hf:owner/name[:config][@revision][#split], e.g. hf:openai/gsm8k:main#test")
    return HubName(**found.groupdict())


def with_split(path: Path, split: str) -> Path:
    """The name with this split, unless it has one."""
    return path if parse_hub_name(path).split else Path(f"{path}#{split}")


def read_hub(path: Path) -> Rows:
    """The rows of a data set, counted from 1; downloaded once, and read lazily from disk.

    Raises:
        RecordError: no such data set, configuration or split, several splits and none named, or no way to the hub.
    """
    for number, row in enumerate(_loaded(path), 1):
        yield Source(path, number), _plain(row, Source(path, number))


def hub_fingerprint(path: Path) -> str:
    """The fingerprint of a data set's contents, as `datasets` computes it."""
    return str(_loaded(path)._fingerprint)


def _rows(path: Path, batches: Iterable["pyarrow.RecordBatch"]) -> Rows:
    number = 0
    for batch in batches:
        for row in batch.to_pylist():
            number += 1
            yield Source(path, number), _plain(row, Source(path, number))


def _plain(row: Row, source: Source) -> Row | RecordError:
    """The row as JSON values, or the error of a value that JSON lacks."""
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
    """The value with null for each empty table, which Parquet cannot hold."""
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


@cache
def _loaded(path: Path) -> "Dataset":
    with needs_extra("datasets", str(path)):
        from datasets.exceptions import DatasetsError

        from datasets import Dataset, load_dataset

    wanted = parse_hub_name(path)
    try:
        found = load_dataset(wanted.name, wanted.config, revision=wanted.revision, split=wanted.split)
    except (OSError, ValueError, RuntimeError, DatasetsError) as error:
        raise RecordError(f"{path}: {_why(error)}") from error
    if isinstance(found, Dataset):
        return found
    if len(found) > 1:
        raise RecordError(f"{path}: has the splits {', '.join(found)}; say which, e.g. {path}#{next(iter(found))}")
    return next(iter(found.values()))


def _why(error: Exception) -> str:
    message = _first_line(error)
    if isinstance(error, ConnectionError):
        return (
            f"the hub cannot be reached ({message}). Expected a connection, or a local copy: "
            "hf download --repo-type dataset ID --local-dir FOLDER elsewhere, then give the folder, of a named "
            "dataset by --dataset-option path=FOLDER"
        )
    return f"cannot be loaded ({message})"
