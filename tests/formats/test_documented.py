"""docs/data.md has a section for every format and every data set, with a row that is read, and names every option."""

import json
import re
from dataclasses import fields
from pathlib import Path

import pytest

from freeprm.formats._reading import load_format, recognise
from freeprm.io import plugins
from freeprm.io.rows import Source, write_rows

PAGE = Path(__file__).parents[2] / "docs" / "data.md"
SECTIONS = dict(re.findall(r"^### `(\w+)`\n(.*?)(?=^##|\Z)", PAGE.read_text(encoding="utf-8"), re.M | re.S))
FORMATS = plugins.names("formats", installed=False)
FILES = [name for name in plugins.names("datasets", installed=False) if name in SECTIONS]


def row_of(name: str) -> dict[str, object]:
    (row,) = re.findall(r"^```json\n(.*?)\n```$", SECTIONS[name], re.M | re.S)
    return json.loads(row)


def test_every_format_has_a_section():
    assert set(FORMATS) <= set(SECTIONS)
    assert {"gsm8k", "math"} <= set(FILES)


@pytest.mark.parametrize("name", FORMATS)
def test_the_row_shown_is_read_by_its_format_and_recognised_as_it(name: str):
    row = row_of(name)
    assert recognise(row) == [name]
    assert list(load_format(name).read(row, Source(PAGE, 1)))


@pytest.mark.parametrize("name", FORMATS)
def test_every_option_is_named_and_both_commands_are_shown(name: str):
    section = SECTIONS[name]
    for option in fields(load_format(name)):  # type: ignore[arg-type]  # every format is a dataclass
        assert f"`{option.name}`" in section
    assert "    freeprm convert " in section
    assert f"--to {name} " in section or name == "rows"


@pytest.mark.parametrize("name", FILES)
def test_the_problem_shown_is_read_by_its_data_set(name: str, tmp_path: Path):
    write_rows(tmp_path / "test.jsonl", [row_of(name)])
    dataset = plugins.load("datasets", name)(path=tmp_path)
    (problem,) = dataset.problems("test", limit=None, seed=0)
    assert problem.answer
