"""CSV: what a cell becomes is decided by its whole column, text stays text, and broken lines are named."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from freeprm.errors import NonFiniteError, RecordError
from freeprm.io.csv_table import read_csv, write_csv


def write(folder: Path, text: str | bytes) -> Path:
    path = folder / "a.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def rows(path: Path) -> list[Any]:
    return [row for _, row in read_csv(path)]


def column(folder: Path, name: str, *cells: str) -> list[Any]:
    quoted = ['"' + cell.replace('"', '""') + '"' for cell in cells]
    return [row[name] for row in rows(write(folder, f"{name},n\n" + "".join(f"{cell},1\n" for cell in quoted)))]


@pytest.mark.parametrize(
    ("cells", "values"),
    [
        (["1", "-2", "0"], [1, -2, 0]),
        (["1", "2.50", "1e-3"], [1, 2.5, 0.001]),
        (["1", "", "nan"], [1, None, None]),
        (["True", "FALSE", "true", ""], [True, False, True, None]),
        (['["a", "b"]', "[]", "null"], [["a", "b"], [], None]),
        (['{"a": [1]}', "{'b': None, 'c': True}"], [{"a": [1]}, {"b": None, "c": True}]),
        (["['it\\'s', \"so\"]", "[True, 1.5]"], ["['it\\'s', \"so\"]", "[True, 1.5]"]),  # not what Python prints
        (["[True, 1.5]", "['x']"], [[True, 1.5], ["x"]]),
        (["['a' 'b']"], ["['a' 'b']"]),  # as numpy prints two texts; Python would take it for one
        (["1", "two"], ["1", "two"]),
        (["007", "1"], ["007", "1"]),
        (["true", "1"], ["true", "1"]),
        (["[1]", "x"], ["[1]", "x"]),
        (["", ""], [None, None]),
        (["null", "None"], ["null", "None"]),  # nothing says that these are other than texts
    ],
)
def test_a_column_holds_what_all_its_filled_cells_are(tmp_path: Path, cells: list[str], values: list[Any]):
    assert column(tmp_path, "x", *cells) == values


@pytest.mark.parametrize(
    ("cell", "value"),
    [
        ("[0.1 0.9]", [0.1, 0.9]),
        ("[ 1.  -0.5\n  2.5e-03]", [1.0, -0.5, 0.0025]),
        ("[[0.1 0.9]\n [1.  2. ]]", [[0.1, 0.9], [1.0, 2.0]]),
        ("[3 4]", [3.0, 4.0]),
        ("[0.1 ... 0.9]", "[0.1 ... 0.9]"),  # with numbers left out
        ("[0.1 --2]", "[0.1 --2]"),
        ("['a' 'b']", "['a' 'b']"),
    ],
)
def test_numbers_that_numpy_printed_are_read_unless_some_are_left_out(tmp_path: Path, cell: str, value: Any):
    assert column(tmp_path, "step_scores", cell) == [value]


@pytest.mark.parametrize("name", ["problem_id", "response", "answer", "pred", "prompt", "completion"])
def test_a_column_that_is_text_by_its_name_stays_text(tmp_path: Path, name: str):
    for cells in (["42", "1.50"], ["true", "false"], ["[1, 2]", "[0, 1]"]):
        assert column(tmp_path, name, *cells) == cells


def test_conversations_become_what_they_are(tmp_path: Path):
    turns = [{"role": "user", "content": "2 + 2?"}]
    assert column(tmp_path, "prompt", '[{"role": "user", "content": "2 + 2?"}]', str(turns)) == [turns, turns]


def test_tables_under_a_name_of_text_become_what_they_are_but_a_response_stays_what_was_said(tmp_path: Path):
    cells = ['{"problem": "2 + 2?"}', '{"problem": null}']
    assert column(tmp_path, "question", *cells) == [{"problem": "2 + 2?"}, {"problem": None}]  # as in PRM800K
    assert column(tmp_path, "response", *cells) == cells


def test_quotes_commas_and_line_breaks_stay_in_their_cell_and_lines_are_counted_on(tmp_path: Path):
    path = write(tmp_path, 'a,b\r\n"x, ""y""\nz","1\r\n2"\r\n\r\nlast,3\r\n')
    read = list(read_csv(path))
    assert [row for _, row in read] == [{"a": 'x, "y"\nz', "b": "1\r\n2"}, {"a": "last", "b": "3"}]
    assert [str(source) for source, _ in read] == [f"{path}:2", f"{path}:6"]  # the first row takes lines 2 to 4


def test_a_byte_order_mark_is_no_part_of_the_first_name(tmp_path: Path):
    assert rows(write(tmp_path, b"\xef\xbb\xbfa,b\n1,2\n")) == [{"a": 1, "b": 2}]


@pytest.mark.parametrize("text", ["", "a,b\n", "\n\n"])
def test_a_file_without_rows_has_none(tmp_path: Path, text: str):
    assert rows(write(tmp_path, text)) == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a,b,a\n1,2,3\n", r"a\.csv:1: the column 'a' is there twice"),
        ("a,,b\n1,2,3\n", r"a\.csv:1: a column without a name"),
        ("a;b\n1;2\n", r"a\.csv:1: one column, 'a;b'; expected commas between cells, found ';'"),
        ('a\n"x\n', r"a\.csv:2: not CSV in UTF-8 \(unexpected end of data\)"),
        ('a,b\n1,2\n"x"y,3\n', r"a\.csv:3: not CSV"),
        (b"a\n1\ncaf\xe9\n", r"a\.csv:.*: not CSV in UTF-8 .*can't decode"),
    ],
)
def test_what_is_no_table_is_refused_by_line(tmp_path: Path, text: str | bytes, message: str):
    with pytest.raises(RecordError, match=message):
        rows(write(tmp_path, text))


def test_a_row_of_another_length_is_an_error_in_its_place_and_the_others_stand(tmp_path: Path):
    before, error, after = rows(write(tmp_path, "a,b\n1,2\n1,2,3\n4,5\n"))
    assert (before, after) == ({"a": 1, "b": 2}, {"a": 4, "b": 5})
    assert str(error) == f"{tmp_path / 'a.csv'}:3: 3 cells under 2 column names; a cell with a comma needs quotes"


def test_a_number_too_large_for_a_float_is_an_error_in_its_place(tmp_path: Path):
    good, error = rows(write(tmp_path, "x,y\n1,a\n1e999,b\n"))
    assert good == {"x": 1, "y": "a"}
    assert "x: is inf; expected a finite number" in str(error)


def test_a_long_response_is_read(tmp_path: Path):
    text = "x" * 200_000  # above the 131,072 characters that Python's csv takes by itself
    assert rows(write(tmp_path, f"response\n{text}\n")) == [{"response": text}]


def test_columns_of_all_rows_are_written_and_nothing_where_a_value_cannot_be(tmp_path: Path):
    path = tmp_path / "b.csv"
    write_csv(path, [{"a": 1}, {"b": [True, None, "é"], "c": None}])
    assert path.read_bytes().decode() == 'a,b,c\r\n1,,\r\n,"[true, null, ""é""]",\r\n'
    with pytest.raises(NonFiniteError, match=r"b\.csv, row 2: x: is nan"):
        write_csv(path, [{"x": 1.0}, {"x": float("nan")}])
    assert len(rows(path)) == 2
    assert [item.name for item in tmp_path.iterdir()] == ["b.csv"]


texts = st.text(st.characters(codec="utf-8", exclude_characters="\x00"), min_size=1)
table = st.lists(
    st.fixed_dictionaries(
        {
            "problem_id": texts,
            "response": texts,
            "correct": st.none() | st.booleans(),
            "score": st.none() | st.floats(allow_nan=False, allow_infinity=False) | st.integers(),
            "steps": st.none() | st.lists(texts),
        }
    ),
    min_size=1,
    max_size=4,
)


@settings(max_examples=100, deadline=None)
@given(table)
def test_rows_survive_the_disk(tmp_path_factory: pytest.TempPathFactory, written: list[dict[str, Any]]):
    path = tmp_path_factory.getbasetemp() / "t.csv"
    write_csv(path, written)
    assert rows(path) == written
