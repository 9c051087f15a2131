"""What `pair` and `train` can be told of the data."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import typer

from freeprm.errors import ConfigError

Pairing = Annotated[str | None, typer.Option(help="cartesian (default) or one_to_one.")]
MaxPairs = Annotated[int | None, typer.Option(help="At most so many pairs of one problem.")]
Balance = Annotated[str | None, typer.Option(help="none, dataset or instruction.")]
Deduplicate = Annotated[
    float | None, typer.Option(help="Leave out responses whose 8-gram overlap with an earlier one is so much, 0 to 1.")
]
Instructions = Annotated[float | None, typer.Option(help="Share of the problems to keep, at random.")]
Responses = Annotated[int | None, typer.Option(help="Responses of each problem to keep, at random.")]
Mix = Annotated[list[str] | None, typer.Option("--mix", help="ROLLOUTS=SHARE: mix in problems, as that share of all.")]
Replace = Annotated[
    list[str] | None, typer.Option("--replace", help="ROLLOUTS=SHARE: replace that share of each problem's responses.")
]


def read_shares(assignments: Sequence[str] | None, *, option: str) -> dict[str, float] | None:
    """`runs/base=0.5` as a source with its share; None where nothing is given.

    Raises:
        ConfigError: no `=`, not a number, or one source twice.
    """
    shares: dict[str, float] = {}
    for assignment in assignments or ():
        source, _, share = assignment.rpartition("=")
        try:
            number = float(share)
        except ValueError:
            source = ""
        if not source:
            raise ConfigError(f"{option} {assignment}: expected ROLLOUTS=SHARE, e.g. {option} runs/base=0.5")
        if source in shares:
            raise ConfigError(f"{option} {assignment}: {source} has a share already; expected each source once")
        shares[source] = number
    return shares or None


def given(options: Mapping[str, Any]) -> dict[str, Any]:
    """The options that were given."""
    return {name: value for name, value in options.items() if value is not None}
