"""A claim: what the paper says, the tests that decide it here, and the figure that goes with it; a file of its own.

    title = "Every objective's best-of-N is above one response, for every generator"
    source = "Table 1"
    paper = "On average DPO 50.4, NCA 49.4, CE 48.4, KTO 45.7 %; one response 39.1 %."

    [[tests]]
    measure = "best_of_n"
    first = ["dpo", "kto", "nca", "ce"]    # one test for each
    second = "random"
    generators = "each"                    # and each generator

Names are those of the methods of a comparison, or of ways to choose without scores. A test whose names a comparison
lacks is not made there, and the report says so.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib import resources
from pathlib import Path
from typing import Any, Literal

from freeprm.errors import ConfigError
from freeprm.experiments.comparison.measures import BASELINES
from freeprm.experiments.comparison.settings import Comparison
from freeprm.io.config import build, read_file, suggestion

Expected = Literal["above", "below", "not_above", "not_below"]
EACH, TOGETHER = "each", "together"
REFERENCE = "reference"
"""In a test of policies: the model that everything starts from."""
OWN_ANSWERS = "own_answers"
"""The measure of trained models as policies."""
VERIFIED = "failed_checks"
"""The measure whose sides are checks of `freeprm verify`."""
_NO_METHODS = {*BASELINES, REFERENCE}


@dataclass(frozen=True, slots=True, kw_only=True)
class ClaimTest:
    """One comparison of two numbers, or of one with a bound."""

    measure: str
    """A name in `reproduction.measuring.MEASURES`."""
    first: str | tuple[str, ...]
    """A method, or a way to choose without scores; several are a test each."""
    second: str | None = None
    """What it is compared with: by difference, or by ratio where the measure is an amount."""
    second_measure: str | None = None
    """Of `second`, where it is another."""
    expect: Expected = "above"
    """How the first stands to the second, by what the paper says."""
    than: float | None = None
    """What the difference, the ratio or the measure itself is held against; by default 0, and 1 for a ratio."""
    least: float | None = None
    """The smallest difference that matters; by default the measure's."""
    generators: str = TOGETHER
    """`together`, `each`, or one generator's name."""
    n: int | None = None
    """Responses a problem to choose from; by default the average over all."""
    half: Literal["easier", "harder"] | None = None
    """Only problems whose `level` is at most the median one, or above it; all by default."""
    paper: float | None = None
    """The paper's number, in the unit that is shown."""
    title: str = ""
    """By default made of the names."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plot:
    """A figure of the paper: lines of methods over something that was varied, or bars."""

    title: str
    measure: str
    """Of the vertical axis, or of the bars."""
    x_label: str = ""
    x_measure: str | None = None
    """Of the horizontal axis; otherwise it is the number that stands before each method."""
    log_x: bool = False
    series: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """Name of a line -> its methods by their places, e.g. { DPO = { 25 = "dpo_i25", 100 = "dpo" } }."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PaperTable:
    """Numbers of the paper beside ours, a row a method."""

    title: str
    measure: str
    columns: tuple[str, ...]
    """The paper's; the last is their average."""
    rows: Mapping[str, tuple[float, ...]]
    """Method -> the paper's numbers, in the order of the columns."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """One claim of the paper, or of its critics."""

    name: str
    """Of its file, e.g. `t1c`."""
    title: str
    source: str
    """Table, figure or section."""
    paper: str
    """What is reported there, in its numbers."""
    tests: tuple[ClaimTest, ...]
    note: str = ""
    """What is to be known about the way it is tested here."""
    plot: Plot | None = None
    table: PaperTable | None = None

    def methods(self) -> set[str]:
        """The methods without which it cannot be tested."""
        return self._sides(*(test for test in self.tests if test.measure != VERIFIED))

    def policies(self) -> set[str]:
        """The methods whose models must answer the test problems themselves."""
        return self._sides(*(test for test in self.tests if test.measure == OWN_ANSWERS))

    def _sides(self, *tests: ClaimTest) -> set[str]:
        return {name for test in tests for name in (*names(test.first), *names(test.second))} - _NO_METHODS

    def shown(self) -> set[str]:
        """Further methods, of its figure and its table."""
        lines = self.plot.series.values() if self.plot else ()
        return {name for line in lines for name in line.values()} | set(self.table.rows if self.table else ())


def names(side: str | Sequence[str] | None) -> tuple[str, ...]:
    """The sides of a test as a list."""
    return () if side is None else (side,) if isinstance(side, str) else tuple(side)


def single_tests(claim: Claim, comparison: Comparison) -> Iterator[ClaimTest]:
    """The claim's tests, one for each first side and, where they are to be tested by themselves, each generator.

    Those that the comparison cannot make are left out; see `lacking`.
    """
    for test in claim.tests:
        places = list(comparison.generators) if test.generators == EACH else [test.generators]
        for first in names(test.first):
            for place in places:
                single = replace(test, first=first, generators=place)
                if not lacking(single, comparison):
                    yield single


def lacking(test: ClaimTest, comparison: Comparison) -> list[str]:
    """What the test names and the comparison has not."""
    found = [] if test.generators in (EACH, TOGETHER, *comparison.generators) else [f"generator {test.generators}"]
    if test.measure == VERIFIED:
        return found
    sides = [name for name in (*names(test.first), *names(test.second)) if name not in _NO_METHODS]
    found += [name for name in sides if name not in comparison.methods]
    if test.measure == OWN_ANSWERS:
        found += [f"answers of {name}" for name in sides if name not in (*comparison.policies.methods, *found)]
    found += [
        f"{name}'s scores of {test.generators}" for name in sides
        if name in comparison.methods and test.generators in comparison.generators
        and test.generators not in comparison.answered_by(name)
    ]  # fmt: skip
    return list(dict.fromkeys(found))


def missing(claim: Claim, comparison: Comparison) -> list[str]:
    """What all of the claim's tests name and the comparison has not."""
    return list(dict.fromkeys(name for test in claim.tests for name in lacking(test, comparison)))


_FILES = resources.files("freeprm.assets") / "claims"
_IN_THE_PAPER = ("p", "t1", "f1", "f3", "f4", "f5", "s52", "t3", "t4", "f6", "t5")
"""Beginnings of names, in the order of the paper; what is not in it comes last."""


def claim_names() -> list[str]:
    """All claims, in the order of the paper."""
    found = [file.name.removesuffix(".toml") for file in _FILES.iterdir() if file.name.endswith(".toml")]
    places = {beginning: place for place, beginning in enumerate(_IN_THE_PAPER)}

    def place(name: str) -> int:
        return next((place for beginning, place in places.items() if name.startswith(beginning)), len(places))

    return sorted(found, key=lambda name: (place(name), name))


def load_claims(only: Sequence[str] = ()) -> list[Claim]:
    """The claims whose names begin so (`t5`, `F4`); all without any.

    Raises:
        ConfigError: there is no such claim, or its file has an unknown key or a bad value; says which.
    """
    known = claim_names()
    wanted: list[str] = []
    for text in only:
        found = [name for name in known if name.startswith(text.lower())]
        if not found:
            raise ConfigError(f"--only {text}: no such claim.{suggestion(text, known)} There are {', '.join(known)}")
        wanted += found
    return [_read(name) for name in known if not only or name in wanted]


def _read(name: str) -> Claim:
    path = Path(str(_FILES / f"{name}.toml"))
    values: dict[str, Any] = {**read_file(path), "name": name}
    try:
        return build(Claim, [values])
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error
