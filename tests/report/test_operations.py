import io

from rich.console import Console

from freeprm.core.curation import Operation
from freeprm.core.groups import Size
from freeprm.report.operations import print_operations


def printed(*operations: Operation) -> str:
    console = Console(file=io.StringIO(), width=120)
    print_operations(console, operations)
    return console.file.getvalue()


def test_a_size_that_changed_is_shown_before_and_after_with_every_reason():
    text = printed(
        Operation(
            name="deduplicate 0.8", before=Size(problems=3, responses=1200, pairs=9),
            after=Size(problems=3, responses=1100, pairs=8), left_out={"repeated responses": 100},
            noted={"repeated responses with another label": 4},
        )
    )  # fmt: skip
    first, second, third = (line.split("  ") for line in text.rstrip().splitlines())
    assert [part.strip() for part in second if part.strip()] == [
        "deduplicate 0.8", "3", "1,200 → 1,100", "9 → 8", "100 repeated responses",
    ]  # fmt: skip
    assert third[-1].strip() == "" or "noted: 4 repeated responses with another label" in text
    assert "data" in first[0]


def test_nothing_done_prints_nothing():
    assert printed() == ""
