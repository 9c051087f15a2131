"""Rows of CSV: commas, a first line of column names, quotes around what holds a comma, a quote or a line break.

Read by Python's csv: pyarrow's reader accepts a quote that is never closed and two columns of one name, and names a
broken row by its number, not by its line.

The type of a cell is that of its column, inferred from all filled cells, so that a `42` among other texts stays text:

- an empty cell is null;
- a column of numbers, of `true` and `false` (in any case), or of lists and tables, in JSON or as Python prints them, or
  of numbers as numpy prints them (`[0.1 0.9]`, eight digits), holds those; `null`, `None` and `nan` are null there;
- every other column is text, and so are, by name, `problem_id`, `prompt`, `response`, `answer`, `pred`, `scorer` and
  their aliases, unless they hold tables or conversations (`response` itself never does).
"""

import ast
import csv
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from freeprm.errors import RecordError
from freeprm.io.columns import COLUMNS
from freeprm.io.rows import Rows, Source, finite, refuse_non_finite, written_whole

_NUMBER = re.compile(r"-?(0|[1-9]\d*)(\.\d+)?([eE][-+]?\d+)?")
_PRINTED = re.compile(r"[-+.\deE\s\[\]]+")
"""What numpy prints of an array of finite numbers; `...` in it stands for those that it leaves out."""
_NULLS = ("null", "None", "NaN", "nan")
_LARGEST_CELL = 2**31 - 1
_TEXT = frozenset(name for ours, column in COLUMNS.items() if column.is_text for name in (ours, *column.called.aliases))
_ALWAYS_TEXT = "response"


def read_csv(path: Path) -> Rows:
    """The rows of a CSV file, which is read twice, a line in memory at a time.

    Raises:
        RecordError: column names that are missing or equal, or what cannot be read as CSV; names the line.
    """
    kinds = _kinds(path)
    for source, cells in _lines(path):
        if isinstance(cells, RecordError):
            yield source, cells
        else:
            yield source, finite({name: _value(cell, kinds[name]) for name, cell in cells.items()}, source)


def write_csv(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write a CSV file atomically: null as an empty cell, lists and tables as JSON.

    Raises:
        NonFiniteError: a value is NaN or infinite; names the row and the field.
    """
    rows = list(rows)
    refuse_non_finite(rows, path)
    names = list(dict.fromkeys(name for row in rows for name in row))
    with written_whole(path) as partial, partial.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerows([names] if names else [])
        writer.writerows([_cell(row.get(name)) for name in names] for row in rows)


def _lines(path: Path) -> Iterator[tuple[Source, dict[str, str] | RecordError]]:
    """Cells by column name, with the line on which each row begins."""
    csv.field_size_limit(_LARGEST_CELL)
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.reader(file, strict=True)
        names: list[str] | None = None
        while True:
            source = Source(path, reader.line_num + 1)
            try:
                cells = next(reader, None)
            except (csv.Error, UnicodeDecodeError) as error:
                raise RecordError(f"{source}: not CSV in UTF-8 ({error}); no row from here on can be read") from error
            if cells is None:
                return
            if not cells:
                continue
            if names is None:
                names = _checked(cells, source)
            elif len(cells) == len(names):
                yield source, dict(zip(names, cells, strict=True))
            else:
                found = f"{len(cells)} cells under {len(names)} column names"
                reason = "more or fewer cells than column names"
                yield source, RecordError(f"{source}: {found}; a cell with a comma needs quotes", reason=reason)


def _checked(names: list[str], source: Source) -> list[str]:
    names = [name.strip() for name in names]
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated or "" in names:
        wrong = f"the column {repeated[0]!r} is there twice" if repeated and repeated[0] else "a column without a name"
        raise RecordError(f"{source}: {wrong}; expected a first line of different column names")
    if len(names) == 1 and (found := next((mark for mark in ";\t" if mark in names[0]), None)):
        raise RecordError(f"{source}: one column, {names[0][:80]!r}; expected commas between cells, found {found!r}")
    return names


def _kinds(path: Path) -> Mapping[str, Callable[[str], Any]]:
    """By column, the first parser that takes all of its filled cells."""
    left: dict[str, list[Callable[[str], Any]]] = {}
    filled: set[str] = set()
    for _, cells in _lines(path):
        if isinstance(cells, RecordError):
            continue
        for name, cell in cells.items():
            ways = left.setdefault(name, _ways(name))
            if cell and ways and cell not in _NULLS:
                filled.add(name)
                ways[:] = [way for way in ways if _takes(way, cell)]
    return {name: ways[0] if ways and name in filled else str for name, ways in left.items()}


def _ways(name: str) -> list[Callable[[str], Any]]:
    """Parsers to try on a column of this name; text if none fits."""
    if name == _ALWAYS_TEXT:
        return []
    return [_table_or_conversation] if name in _TEXT else [_number, _boolean, _nested]


def _value(cell: str, kind: Callable[[str], Any]) -> Any:
    return None if not cell or (cell in _NULLS and kind is not str) else kind(cell)


def _takes(way: Callable[[str], Any], cell: str) -> bool:
    try:
        way(cell)
    except ValueError:
        return False
    return True


def _number(cell: str) -> int | float:
    if not _NUMBER.fullmatch(cell):
        raise ValueError
    return float(cell) if any(mark in cell for mark in ".eE") else int(cell)


def _boolean(cell: str) -> bool:
    known = {"true": True, "false": False}
    if cell.lower() not in known:
        raise ValueError
    return known[cell.lower()]


def _nested(cell: str) -> list[Any] | dict[str, Any]:
    """A list or a table: JSON, or what Python or numpy prints for one, as pandas writes it."""
    if cell[0] not in "[{":
        raise ValueError
    try:
        value = json.loads(cell)
    except (ValueError, RecursionError):
        if _PRINTED.fullmatch(cell) and "..." not in cell:
            return _printed(cell)
        try:
            value = ast.literal_eval(cell)
        except (SyntaxError, RecursionError, MemoryError) as error:
            raise ValueError from error
        if repr(value) != cell:  # ['a' 'b'], as numpy prints it, would be one text for Python
            raise ValueError from None
    if not isinstance(value, list | dict):
        raise ValueError
    return value


def _printed(cell: str) -> list[Any]:
    """An array of numbers as numpy prints it: blanks between them, and `1.` for 1.0."""
    words = " ".join(cell.replace("[", " [ ").replace("]", " ] ").split())
    spelled = re.sub(r"(?<=[\d.\]]) (?=[-+.\d\[])", ", ", words)
    numbers = re.sub(r"[-+.\deE]+", lambda found: repr(float(found[0])), spelled)  # raises ValueError
    value = json.loads(numbers)
    if not isinstance(value, list):
        raise ValueError
    return value


def _table_or_conversation(cell: str) -> list[Any] | dict[str, Any]:
    value = _nested(cell)
    if isinstance(value, list) and not (value and all(isinstance(item, dict) for item in value)):
        raise ValueError
    return value


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
