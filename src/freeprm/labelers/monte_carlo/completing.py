"""Drawing the completions of prefixes: what is kept of each, noted as they come, and what they cost."""

import time
from collections.abc import Mapping, Sequence

from freeprm.core.flops import Flops, ModelShape, charge, forward_flops
from freeprm.core.ledger import DECODE, PREFILL
from freeprm.core.prefixes import Prefix
from freeprm.engines.base import Engine, Request, Sampled, SamplingParams
from freeprm.io.progress import bar
from freeprm.labelers.base import Notebook
from freeprm.labelers.monte_carlo.judging import Completion, Judges
from freeprm.types import Charge, Cost, Prompt

_NOTE_ROWS, _NOTE_SECONDS = 1024, 1.0
_KEY = "completions"


def complete(
    wanted: Sequence[Prefix], prompts: Mapping[str, Prompt], *, drawer: Engine, params: SamplingParams, n: int,
    judges: Judges, notebook: Notebook,
) -> list[Completion]:  # fmt: skip
    """`n` completions of each prefix, in order.

    Args:
        wanted: prefixes.
        prompts: by problem.
        drawer: draws.
        params: how.
        n: completions of a prefix.
        judges: find the answers.
        notebook: completions of earlier sessions; those of this one are added.
    """
    known = [Completion(*row) for note in notebook.known for row in note.get(_KEY, ())]
    done: dict[int, set[int]] = {}
    for completion in known:
        done.setdefault(completion.prefix, set()).add(completion.sample_idx)
    names = {f"{prefix.problem_id}#{index}": index for index, prefix in enumerate(wanted)}
    requests = [
        Request(
            problem_id=name, prompt=prompts[wanted[index].problem_id], prefix=wanted[index].text,
            sample_idxs=tuple(range(n)), done=frozenset(done.get(index, ())),
        )
        for name, index in names.items()
    ]  # fmt: skip
    with bar("label", len(wanted) * n, unit="completions", done=len(known)) as advance:
        block: list[Sampled] = []
        started = noted = time.perf_counter()
        n_tokens = 0

        def note() -> None:
            found = judges.found([item.text for item in block])
            new = [_kept(item, names[item.problem_id], *found[item.text]) for item in block]
            notebook.note({_KEY: new})
            known.extend(new)
            block.clear()

        if any(len(request.done) < n for request in requests):
            for sampled in drawer.sample(requests, params=params):
                block.append(sampled)
                now = time.perf_counter()
                n_tokens += sampled.n_generated_tokens or 0
                advance(1, f"{n_tokens / (now - started):,.0f} tokens/s" if n_tokens else "")
                if len(block) >= _NOTE_ROWS or now - noted > _NOTE_SECONDS:
                    note()
                    noted = now
        if block:
            note()
    return sorted(known, key=lambda completion: completion[:2])


def cost_of(completions: Sequence[Completion], shape: ModelShape | None) -> Cost:
    """What was read and drawn; an engine that does not say what it read is taken to read each prefix once."""
    read, drawn = _Sum(), _Sum()
    seen: set[int] = set()
    for item in completions:
        length, n_generated = item.n_prompt or 0, item.n_generated or 0
        n_read = (0 if item.prefix in seen else length) if item.n_read is None else item.n_read
        seen.add(item.prefix)
        read.add(n_read, before=length - n_read)
        drawn.add(n_generated, before=length)
    return Cost(
        prompt_tokens=read.n_tokens, generated_tokens=drawn.n_tokens,
        charges=(read.charge(PREFILL, shape), drawn.charge(DECODE, shape)),
    )  # fmt: skip


class _Sum:
    """Tokens, and how many each of them attends to, itself included."""

    def __init__(self) -> None:
        self.n_tokens = self._attended = 0

    def add(self, n: int, *, before: int) -> None:
        """Tokens in a row behind so many."""
        self.n_tokens += n
        self._attended += n * before + n * (n + 1) // 2

    def charge(self, what: str, shape: ModelShape | None) -> Charge:
        if shape is None or not self.n_tokens:
            return charge(what, self.n_tokens, None if shape is None else Flops(0.0, 0.0))
        mean_length = 2 * self._attended / self.n_tokens - 1  # of causal sequences with this mean context
        return charge(what, self.n_tokens, forward_flops(shape, self.n_tokens, mean_length))


def _kept(sampled: Sampled, prefix: int, pred: str | None, reason: str | None) -> Completion:
    return Completion(
        prefix=prefix, sample_idx=sampled.sample_idx, pred=pred, reason=reason, truncated=sampled.truncated,
        n_prompt=sampled.n_prompt_tokens, n_read=sampled.n_read_tokens, n_generated=sampled.n_generated_tokens,
    )  # fmt: skip
