"""Select with early stopping: rollouts and a reward model in; the choice of best-of-n, found without scoring all, out.

    out/metrics.json      accuracy of best-of-n, and the shares of steps and tokens scored, with 95 % intervals
    out/selections.jsonl  a row for each problem and n: the chosen sample, its score, and what was scored to find it

Chosen is the first of the responses with the highest complete score among the first n samples of each problem (see
`core.early_stopping` for the proof). The accuracy is that of the chosen responses; `select` on complete scores takes
the mean over all that share the first place. Here not all are known, so possible ties are counted.
"""

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from freeprm.core.answers import equivalent
from freeprm.core.early_stopping import BestResponse, check_aggregator
from freeprm.core.flops import ModelShape, forward_charges
from freeprm.core.intervals import percentile_interval, resample
from freeprm.core.selectors import Selector, SelectorAtN, accuracy_metrics
from freeprm.core.steps import TOKENS
from freeprm.core.steps import splitter as splitter_named
from freeprm.errors import SpanError
from freeprm.io.progress import bar
from freeprm.io.rollouts import read_rollouts
from freeprm.io.rows import Row
from freeprm.io.runs import RunFolder
from freeprm.models.best_of_n_search import CandidatePool, GivenResponses, passed, search
from freeprm.models.encoding import Encoded, TooLong, check_vocabulary, encode, fit
from freeprm.models.incremental import Stepped, StepwiseRewards
from freeprm.models.loading import device_name
from freeprm.scorers.base import steps_of
from freeprm.scorers.implicit import ImplicitPRM
from freeprm.settings import SelectEarlySettings
from freeprm.stages.base import RunResult, completed, loaded_prm, sample_sizes, stage
from freeprm.types import Cost, Group, Metric, Rollout, group_rollouts

ROWS = "selections"
SHARES = ("steps", "tokens", "distinct_tokens")
"""For each, a row has `<name>_scored` and `<name>`, the total of different responses."""


@stage(SelectEarlySettings)
def select_early(inputs: Sequence[Path], settings: SelectEarlySettings, out: Path) -> RunResult:
    """Best-of-n with as little scoring as possible; the rollouts' own scores are ignored.

    Resumed by the same call. Only the models that the reward needs are run.
    """
    check_aggregator(settings.aggregator)
    if settings.splitter is not None and settings.splitter != TOKENS:
        splitter_named(settings.splitter)
    prm = loaded_prm(settings, device=settings.device, dtype=settings.dtype)
    splitter = settings.splitter or prm.config.splitter
    decided = {name: value for name, value in settings.deciding().items() if name not in ("prm", "reference")}
    identity = {"early_stop": True, **prm.identity(), **decided, "splitter": splitter}
    with RunFolder(out, stage="select", settings=identity, inputs=inputs) as run:
        if run.complete:
            return RunResult.load(out)
        read = read_rollouts(inputs, columns=settings.columns, on_bad=settings.on_bad)
        counts = Counter({f"skipped: {reason}": count for reason, count in read.skipped.items()})
        groups = group_rollouts(read.rollouts)
        sizes = sample_sizes(settings.n, [len(group.rollouts) for group in groups], default=lambda most: [most])
        field = _Field(prm, sizes, splitter=splitter, too_long=settings.too_long, counts=counts)
        rewards = StepwiseRewards(
            policy=prm.policy, reference=prm.reference, reward=settings.reward, beta=prm.config.beta
        )
        done, before = _done(run), Counter[str]()
        with bar("select", len(groups), unit="problems") as advance:
            advance(len(done))
            pools = field.pools(group for group in groups if group.problem_id not in done)
            source, selector = GivenResponses(rewards), f"best_of_n/{settings.aggregator}"
            for pool, _, found in search(
                pools, source=source, aggregator=settings.aggregator, batch=settings.batch
            ):  # fmt: skip
                run.append(ROWS, field.rows(pool, found, scorer=settings.reward, selector=selector))
                tokens = Counter(rewards.read)
                run.log_part({**field.part(pool), "read": {what: n - before[what] for what, n in tokens.items()}})
                before = tokens
                advance(1, note=f"{tokens.total():,} tokens")
        order = {group.problem_id: index for index, group in enumerate(groups)}
        rows = sorted(run.rows(ROWS), key=lambda row: (order[row["problem_id"]], row["n"]))
        run.rewrite(ROWS, rows)
        _count(rows, groups, counts)
        run.write_metrics(list(_metrics(rows, seed=settings.seed)))
        parts = {part["problem_id"]: part for part in run.parts()}  # the last of duplicates
        for part in parts.values():
            counts.update(part["left_out"])
        run.finish(cost=_cost(prm, run.parts()), counts=+counts, models={"policy": prm.policy.source})
    return RunResult.load(out)


class _Field:
    """Rollouts as candidate pools, and the decision on a pool as rows."""

    def __init__(
        self, prm: ImplicitPRM, sizes: Sequence[int], *, splitter: str, too_long: TooLong, counts: Counter[str]
    ):
        self._prm, self._sizes, self._counts = prm, sizes, counts
        self._splitter, self._too_long = splitter, too_long
        self._rollouts: dict[str, list[Rollout]] = {}  # of open pools
        self._left_out: dict[str, Counter[str]] = {}

    def pools(self, groups: Iterable[Group]) -> Iterator[CandidatePool]:
        """A pool for each problem that has enough responses for the smallest n."""
        for group in groups:
            present = [rollout for rollout in group.rollouts if rollout.response]
            left_out = Counter({"excluded: empty response": len(group.rollouts) - len(present)})
            encoded = encode(self._prm.policy.tokenizer, present)
            check_vocabulary(encoded, self._prm.policy.model.config, model=self._prm.policy.source)
            fitted = fit(encoded, max_length=self._prm.policy.max_length, too_long=self._too_long)
            left_out.update(fitted.counts)
            sizes = [size for size in self._sizes if size <= len(fitted.kept)]
            if not sizes:
                self._counts.update(left_out)
            else:
                self._left_out[group.problem_id] = left_out
                rollouts = [present[index] for index in fitted.kept[: sizes[-1]]]
                yield self._pool(group.problem_id, fitted.encoded[: sizes[-1]], rollouts, sizes)

    def rows(self, pool: CandidatePool, found: Mapping[int, BestResponse], *, scorer: str, selector: str) -> list[Row]:
        """A row for each n; the pool is decided."""
        rollouts = self._rollouts.pop(pool.name)
        return [
            {
                "problem_id": pool.name,
                "scorer": scorer,
                "selector": selector,
                "n": n,
                **_chosen(rollouts[one.best]),
                "score": one.score,
                "may_be_tied": one.running.count(one.score) > 1,
                **_shares(pool.responses[: pool.sizes[n]], one.n_steps),
            }
            for n, one in found.items()
        ]

    def part(self, pool: CandidatePool) -> Row:
        """What a resumed run needs of a pool besides its rows."""
        return {
            "problem_id": pool.name,
            "left_out": +self._left_out.pop(pool.name),
            "n_responses": len(pool.responses),
            "n_tokens": sum(len(item.encoded.ids) for item in pool.responses),
        }

    def _pool(
        self, name: str, encoded: Sequence[Encoded], rollouts: Sequence[Rollout], sizes: Sequence[int]
    ) -> CandidatePool:
        first: dict[tuple[bytes, str], int] = {}
        for index, (item, rollout) in enumerate(zip(encoded, rollouts, strict=True)):
            first.setdefault((item.ids.tobytes(), repr(rollout.extra.get("steps"))), index)
        distinct = list(first.values())  # ascending
        self._rollouts[name] = [rollouts[index] for index in distinct]
        responses = tuple(self._stepped(encoded[index], rollouts[index]) for index in distinct)
        return CandidatePool(name=name, responses=responses, sizes={n: bisect_left(distinct, n) for n in sizes})

    def _stepped(self, encoded: Encoded, rollout: Rollout) -> Stepped:
        try:
            _, steps = steps_of(encoded.spans, rollout.response, self._splitter, given=rollout.extra.get("steps"))
        except SpanError as error:
            raise SpanError(f"{encoded.name}: {error}") from error
        return Stepped(encoded=encoded, steps=tuple(steps))


def _chosen(rollout: Rollout) -> Row:
    """The chosen sample, with a missing answer and label added."""
    made = completed(rollout, equivalent)
    return {"sample_idx": made.sample_idx, "response": made.response, "answer": made.pred, "correct": made.correct}


def _shares(responses: Sequence[Stepped], n_steps: Sequence[int]) -> dict[str, int]:
    scored, total = passed(responses, n_steps), passed(responses, [len(item.steps) for item in responses])
    return {
        column: value
        for name, part, whole in zip(SHARES, scored, total, strict=True)
        for column, value in ((f"{name}_scored", part), (name, whole))
    }


def _done(run: RunFolder) -> set[str]:
    """Problems of earlier sessions, without the last one, whose rows may not all have been written."""
    rows = run.rows(ROWS)
    whole = [row for row in rows if row["problem_id"] != rows[-1]["problem_id"]]
    run.rewrite(ROWS, whole)
    return {row["problem_id"] for row in whole}


def _count(rows: Sequence[Row], groups: Sequence[Group], counts: Counter[str]) -> None:
    counts["problems"] = len(groups)
    counts["responses"] = sum(len(group.rollouts) for group in groups)
    for n in {row["n"] for row in rows}:
        at_n = [row for row in rows if row["n"] == n]
        counts[f"problems left out at n={n}, with fewer responses"] = len(groups) - len(at_n)
        counts[f"chosen at n={n} where others may share the first place"] = sum(row["may_be_tied"] for row in at_n)
        counts[f"chosen at n={n} without label, counted as not correct"] = sum(row["correct"] is None for row in at_n)


def _metrics(rows: Sequence[Row], *, seed: int) -> Iterator[Metric]:
    """Accuracies, if any label is known, then shares."""
    by_n = {n: [row for row in rows if row["n"] == n] for n in sorted({row["n"] for row in rows})}
    if any(row["correct"] is not None for row in rows):
        table = {
            SelectorAtN(Selector(part[0]["scorer"], part[0]["selector"]), n): {
                row["problem_id"]: float(row["correct"] is True) for row in part
            }
            for n, part in by_n.items()
        }
        yield from accuracy_metrics(table, seed=seed)
    for n, part in by_n.items():
        for name in SHARES:
            scored, total = (np.array([row[column] for row in part]) for column in (f"{name}_scored", name))
            times = resample(len(part), seed=seed)  # (R, P)
            interval = percentile_interval(float(scored.sum() / total.sum()), times @ scored / (times @ total))
            yield Metric(
                metric=f"{name}_scored", value=interval.value, low=interval.low, high=interval.high, count=len(part),
                scorer=part[0]["scorer"], selector=part[0]["selector"], n=n, seed=seed,
            )  # fmt: skip


def _cost(prm: ImplicitPRM, parts: Sequence[Row]) -> Cost:
    read = Counter[str]()
    for part in parts:
        read.update(part["read"])  # a sum of counters would lose a model that was not read
    n_tokens, n_responses = (sum(part[name] for part in parts) for name in ("n_tokens", "n_responses"))
    shape = ModelShape.of(prm.policy.model.config.get_text_config())
    return Cost(
        scored_tokens=read.total(),
        charges=forward_charges(shape, read, mean_length=n_tokens / max(1, n_responses)),
        devices=(device_name(prm.policy.model.device),),
    )
