"""Guided search: solutions are drawn step by step, and a reward model decides which go on, and in how many ways.

Beams are solutions so far. After each step they are ranked by the rewards of their steps; the best are kept, and each
of these goes on in `width` ways: its own, and others that draw other tokens from the end of its last step. What was
read of a beam, by the drawing model and by the reward model, is kept for all that go on from it, so that only new
steps go through a model.

Beam search (Snell et al. 2024, arXiv:2408.03314) ranks all n beams together and keeps n / width of them. Diverse
verifier tree search (Beeching, Tunstall and Rush 2024) keeps the best of each of n / width trees. With a lookahead of k
a beam is ranked after k further steps, which are its own next ones if it is kept, so they are drawn once.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import NamedTuple

from torch import Tensor

from freeprm.engines.hf.decoding import Wanted
from freeprm.engines.hf.drawing import uniforms
from freeprm.engines.hf.judging import Candidate, Judge, ScoredSample, advance
from freeprm.engines.hf.writing import Draft, Writer
from freeprm.errors import ConfigError
from freeprm.models.incremental import ReadPrompt

_ROWS = 256
"""Beams drawn at a time, of several problems."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Search:
    """How to search."""

    n: int
    """Beams."""
    width: int
    """Ways in which a kept beam goes on; n is a multiple of it."""
    trees: bool
    """Keep the best beam of each tree, for diversity; else the best n / width of all."""
    aggregator: Callable[[Sequence[float]], float]
    """(k,) step rewards -> what beams are ranked by."""
    lookahead: int = 0
    """Steps drawn ahead before ranking."""
    max_steps: int = 40
    """Beams branch after so many steps at most, and then go on to their end."""

    def __post_init__(self) -> None:
        if self.width < 1 or self.n < 1 or self.n % self.width:
            raise ConfigError(f"n: is {self.n} and width {self.width}; expected a multiple of the width, both above 0")
        if self.lookahead < 0 or self.max_steps < 1:
            raise ConfigError(f"lookahead: is {self.lookahead}, max_steps {self.max_steps}; expected 0 or more, and 1")

    @property
    def n_kept(self) -> int:
        """Beams kept after each step, and solutions at the end."""
        return self.n // self.width


class Searched(NamedTuple):
    """What a problem's search ended with."""

    problem_id: str
    solutions: tuple[ScoredSample, ...]
    """n / width, in order of their rank; fewer where beams could not be scored."""
    n_generated: int
    """Tokens drawn, of all beams."""
    n_beams: int
    """Beams drawn, dropped ones included."""
    n_out: int
    """Of these, the ones that could not be scored: empty, too long, or read as other tokens by the reward model."""


def tree_search(problems: Iterable[Wanted], *, writer: Writer, judge: Judge, how: Search) -> Iterator[Searched]:
    """Search each problem; several at a time, which changes no result but by rounding.

    Args:
        problems: with n samples each, 0 to n - 1.
        writer: draws.
        judge: scores.
        how: the search.

    Raises:
        ModelError: unless the judge drops such beams: the reward model's tokenizer splits the beginning of a text
            otherwise once it is longer. That happens more often here than in sampling, as branches begin in the middle.
    """
    waiting = iter(problems)
    trees: list[_Tree] = []
    while True:
        room = _room(writer, judge, how, trees)
        trees += [_Tree(problem, writer, how) for problem in islice(waiting, room)]
        if not trees:
            return
        while behind := [beam for tree in trees for beam in tree.behind()]:
            before = sum(len(beam.draft.ids) for beam in behind)
            advance(behind, writer=writer, judge=judge)
            assert sum(len(beam.draft.ids) for beam in behind) > before, "each has gone on"
        for tree in trees:
            tree.branch()
        for tree in [tree for tree in trees if tree.is_done]:
            yield tree.searched(writer)
            tree.close(writer, judge)
        trees = [tree for tree in trees if not tree.is_done]


def _room(writer: Writer, judge: Judge, how: Search, trees: "Sequence[_Tree]") -> int:
    """How many further problems may be opened; one at least where none is open."""
    by_rows = _ROWS // how.n - len(trees)
    if not trees:
        return max(1, by_rows)
    size = max(tree.size for tree in trees)
    by_memory = int(min(writer.capacity, judge.rewards.capacity) / 2 / max(1, size)) - len(trees)
    return max(0, min(by_rows, by_memory))


class _Tree:
    """The search of one problem."""

    def __init__(self, problem: Wanted, writer: Writer, how: Search):
        self._problem, self._how = problem, how
        prompts: dict[bytes, ReadPrompt] = {}
        noted: dict[bytes, Tensor] = {}
        first = [Candidate(draft, prompts, noted) for draft in writer.open(problem)]
        size = how.width if how.trees else how.n
        self._groups = [first[start : start + size] for start in range(0, how.n, size)]
        self._all = list(first)
        self._step = 1
        self.is_done = False

    @property
    def size(self) -> int:
        """Tokens held so far."""
        return len(self._problem.ids) + sum(len(beam.draft.ids) for beam in self._all)

    def behind(self) -> list[Candidate]:
        """Beams that are to go on before they are ranked."""
        target = self._step + self._how.lookahead if self._step <= self._how.max_steps else None
        return [
            beam
            for group in self._groups
            for beam in group
            if not beam.is_out and beam.draft.stop_reason is None and (target is None or len(beam.scores) < target)
        ]

    def branch(self) -> None:
        """Keep the best beams of each group, and have them go on in several ways; or end."""
        n_kept = 1 if self._how.trees else self._how.n_kept
        kept = [self._ranked(group)[:n_kept] for group in self._groups]
        ended = self._step > self._how.max_steps or all(self._is_at_end(beam) for group in kept for beam in group)
        self.is_done = ended
        self._groups = kept if ended else [self._branched(group) for group in kept]
        self._step += 1

    def searched(self, writer: Writer) -> Searched:
        """The result."""
        best = self._ranked([beam for group in self._groups for beam in group])
        return Searched(
            problem_id=self._problem.problem_id,
            solutions=tuple(
                ScoredSample(replace(writer.sampled(beam.draft), sample_idx=index), beam.step_scores)
                for index, beam in enumerate(best)
            ),
            n_generated=sum(len(beam.draft.ids) - beam.draft.n_given for beam in self._all),
            n_beams=len(self._all),
            n_out=sum(beam.is_out for beam in self._all),
        )

    def close(self, writer: Writer, judge: Judge) -> None:
        """Free what was kept of the problem."""
        writer.close([beam.draft for beam in self._all])
        for prompt in self._all[0].prompts.values():
            judge.rewards.close(prompt)

    def _ranked(self, group: Sequence[Candidate]) -> list[Candidate]:
        """Beams that can be scored, the best first; a text that is there already comes after all different ones."""
        scored = sorted((beam for beam in group if not beam.is_out), key=lambda beam: -self._value(beam))
        seen: set[tuple[int, ...]] = set()
        first: list[Candidate] = []
        again: list[Candidate] = []
        for beam in scored:
            ids = tuple(beam.draft.ids)
            (again if ids in seen else first).append(beam)
            seen.add(ids)
        return first + again

    def _value(self, beam: Candidate) -> float:
        """What a beam is ranked by: its steps up to the lookahead's end, or all of a finished one."""
        n_steps = self._step + self._how.lookahead
        finished = beam.draft.stop_reason is not None
        return self._how.aggregator(beam.scores if finished else beam.scores[:n_steps])

    def _is_at_end(self, beam: Candidate) -> bool:
        return beam.draft.stop_reason is not None and len(beam.scores) <= self._step

    def _branched(self, group: Sequence[Candidate]) -> list[Candidate]:
        """The beams with others that go on from the end of their last step."""
        found = []
        for beam in group:
            found.append(beam)
            for _ in range(0 if self._is_at_end(beam) else self._how.width - 1):
                draft = _forked(beam, self._step, branch=len(self._all))
                if draft is not None:
                    other = beam.fork(draft, n_steps=self._step)
                    self._all.append(other)
                    found.append(other)
        return found


def _forked(beam: Candidate, n_steps: int, *, branch: int) -> Draft | None:
    """A draft that goes on from the end of a beam's first steps, with random numbers of its own.

    Where the reward model reads other tokens than were drawn, the end of a step is no end of a token that was drawn;
    there it goes on from where the beam is, and not at all where that is its end.
    """
    draft, stepped = beam.draft, beam.stepped
    assert stepped is not None
    n_prompt, stop = len(draft.wanted.ids), stepped.steps[n_steps - 1].stop
    drawn = [*draft.wanted.ids, *draft.ids[:stop]]
    is_same = stepped.encoded.n_prompt == n_prompt and stepped.encoded.ids[: n_prompt + stop].tolist() == drawn
    if not is_same and draft.stop_reason is not None:
        return None
    n_taken = stop if is_same else len(draft.ids)
    return Draft(
        wanted=draft.wanted, sample_idx=branch, room=draft.room, past=draft.past[: n_prompt + n_taken - 1],
        numbers=uniforms(draft.wanted.prompt, sample_idx=branch, seed=draft.seed, count=draft.room),
        ids=draft.ids[:n_taken], logprobs=draft.logprobs[:n_taken], n_given=n_taken, seed=draft.seed,
    )  # fmt: skip
