"""The embedded world's word problems, in any number, without a file."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import cast

from freeprm.errors import ConfigError
from freeprm.types import Problem
from freeprm.world.problems import DEFAULT_DIFFICULTY, Split, generate
from freeprm.world.solutions import solve


@dataclass(frozen=True, kw_only=True)
class Arithmetic:
    """Problems that take 3 to `difficulty` steps; see `freeprm.world.problems`."""

    difficulty: int = DEFAULT_DIFFICULTY
    """Steps of the longest solutions."""

    def problems(self, split: str, *, limit: int | None, seed: int) -> Iterator[Problem]:
        """Problems with `extra["level"]`, the number of steps.

        Raises:
            ConfigError: no such split or difficulty, or no limit: there is no end of them.
        """
        if limit is None:
            raise ConfigError("arithmetic: there is no end of its problems; say how many, with n_problems")
        try:
            endless = generate(cast("Split", split), seed=seed, difficulty=self.difficulty)
            for index, drawn in enumerate(islice(endless, limit)):
                steps = list(solve(drawn))
                yield Problem(
                    problem_id=f"arithmetic-{split}-{self.difficulty}-{seed}-{index}",
                    prompt=drawn.text,
                    answer=str(steps[-1].value),
                    extra={"level": len(steps)},
                )
        except ValueError as error:
            raise ConfigError(f"arithmetic: {error}") from error


PLUGIN = Arithmetic
