"""Score rollouts with any reward model: one file of rows, or for log-ratios one for each reward."""

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from itertools import groupby, islice
from pathlib import Path
from types import MappingProxyType

from freeprm.core.flops import ModelShape
from freeprm.core.rewards import check_reward
from freeprm.core.steps import TOKENS
from freeprm.core.steps import splitter as splitter_named
from freeprm.errors import ConfigError
from freeprm.executors.base import Executor
from freeprm.formats._reading import read_responses
from freeprm.io.config import build
from freeprm.io.plugins import built
from freeprm.io.progress import Advance, bar
from freeprm.io.rows import Row
from freeprm.io.runs import RunFolder, behind
from freeprm.models.determinism import algorithms
from freeprm.models.loading import LoadOptions
from freeprm.models.memory import read_size
from freeprm.scorers._job import Part, ScoredPart, ScoringJob
from freeprm.scorers._usage import ModelUsage, scoring_cost
from freeprm.scorers.base import Scorer, ScorerSource, ScoringOptions, Servers
from freeprm.settings import ScorerSettings, ScoreSettings
from freeprm.stages.base import RunResult, stage
from freeprm.types import Cost, Rollout

BATCH = 256
"""Responses scored before their rows are written, and what an interruption costs at most: minutes of a real model."""
_LEFT_OUT = "left_out"
_NONE: Mapping[str, object] = MappingProxyType({})
_Written = Mapping[str, set[tuple[str, int]]]  # problem and sample of each row, by scorer


@stage(ScoreSettings)
def score(inputs: Sequence[Path], settings: ScoreSettings, out: Path) -> RunResult:
    """Write each response's scores, one row a response; resumed by the same call.

    A row is the rollout's own with `scorer`, and `step_scores` with `step_spans` (characters), or `score`, depending on
    the model. A log-ratio's step scores are rewards in beta * nats; its rows also have `reward` (their sum, r(y)), and
    with `tokens` also `token_rewards` and `token_spans`. A ProcessBench file has its own steps.
    """
    executor: Executor = built("executors", settings.executor, [settings.executor_options])
    if settings.deterministic and (executor.remote or settings.policy_url is not None):
        raise ConfigError("deterministic: is for models in this process, not in other workers or on servers")
    cache = None if settings.cache is None else Path(settings.cache)
    prm = scorer_of(
        settings, stored_reference=settings.stored_reference, cache=cache, servers=_servers(settings),
        of_log_ratios={"--tokens": settings.tokens},
    )  # fmt: skip
    if executor.remote and isinstance(prm, Scorer):
        raise ConfigError("prm: is a loaded model, which stays in this process; give workers elsewhere a ScorerSource")
    about = prm.about if isinstance(prm, Scorer) else prm.describe()
    options = ScoringOptions(
        rewards=tuple(settings.rewards) or about.rewards, splitter=settings.splitter, tokens=settings.tokens,
        too_long=settings.too_long, token_budget=settings.token_budget, reasoning=settings.reasoning,
        max_memory=max_memory_of(settings),
    )  # fmt: skip
    about.check(options)
    names = {scorer_name(settings.name, reward): reward for reward in options.rewards} or {
        settings.name or about.name: ""
    }
    decided = {name: value for name, value in settings.deciding().items() if name not in ("rewards", "tokens")}
    identity = {
        **about.identity(),
        **({"rewards": list(options.rewards), "tokens": options.tokens} if options.rewards else {}),
        **decided,
        "splitter": options.splitter or about.splitter,
        "batch": executor.block or BATCH, "batches": "balanced by tokens",
    }  # fmt: skip
    folder = RunFolder(out, stage="score", settings=identity, inputs=inputs)
    with algorithms(deterministic=settings.deterministic), folder as run:
        if run.complete:  # no model is loaded
            return RunResult.load(out)
        rollouts, counts = read_responses(inputs, columns=settings.columns, on_bad=settings.on_bad)
        parts = _parts(rollouts, identity["batch"])
        written = {name: {_key(row) for row in run.rows(file_name(name))} for name in names}
        done = _done(run, parts, written)
        counts["resumed"] = sum(len(parts[number].rollouts) for number in done)
        todo = [part for part in parts if part.number not in done]
        scorer = prm if isinstance(prm, Scorer) or executor.remote else prm.load()
        with bar("score", len(rollouts), unit="responses", done=counts["resumed"]) as advance:
            passed = None if executor.remote else _token_rate(advance)
            job = ScoringJob(scorer=scorer, names=names, options=options, passed=passed)
            with behind(partial(_append, run, written=written)) as append:
                for scored in executor.run(job.worker, [[part] for part in todo]):
                    append(scored)
                    advance(len(parts[scored.part].rollouts))
        counts["scored"] = _finish_rows(run, rollouts, list(names))
        models = {"policy" if about.rewards else "scorer": about.source}
        run.finish(cost=_cost(run, scorer.shape(), counts), counts=+counts, models=models)
    return RunResult.load(out)


def scorer_of(
    settings: ScorerSettings, *, stored_reference: bool = True, cache: Path | None = None,
    servers: Servers | None = None, of_log_ratios: Mapping[str, object] = _NONE,
) -> Scorer | ScorerSource:  # fmt: skip
    """The scorer that settings name, loaded or not.

    Args:
        settings: which, and how it is loaded.
        stored_reference, cache, servers: see `ScorerSource`.
        of_log_ratios: further options that only a log-ratio has, by flag.

    Raises:
        ConfigError: none or several are given; options of log-ratios are given for another kind; or there is no such
            reward or splitter.
    """
    for reward in settings.rewards:
        check_reward(reward)
    if settings.splitter not in (None, TOKENS):
        splitter_named(settings.splitter)
    if isinstance(settings.prm, Scorer | ScorerSource):
        if servers is not None:
            raise ConfigError("policy_url: is for a folder; a loaded scorer has its models, and a source its `servers`")
        return settings.prm
    sources = [item is not None for item in (settings.prm, settings.untrained, settings.scorer)]
    if sum(sources) != 1 or (settings.scorer is None) != (settings.model is None):
        raise ConfigError("give one of --prm FOLDER, --untrained MODEL, or --scorer NAME --model MODEL")
    if settings.untrained is not None and settings.reference_device is not None:
        raise ConfigError("--reference-device: is for --prm; a model that is its own reference is on one device")
    options = {
        "--reward": settings.rewards, "--beta": settings.beta, "--override": settings.override,
        "--reference-device": settings.reference_device, "--cache": cache, "--policy-url": servers,
        **of_log_ratios,
    }  # fmt: skip
    if settings.scorer is not None:
        _refuse(options, "a released model gives the scores that it gives")
    source = str(settings.prm or settings.untrained or settings.model)
    if settings.prm is not None and not ScorerSource(source=source, load_reference=False).describe().rewards:
        _refuse({**options, "--reference": settings.reference}, f"{source} gives values")
    return ScorerSource(
        source=source,
        scorer=settings.scorer if settings.untrained is None else "untrained",
        reference=settings.reference,
        load_reference=list(settings.rewards) != ["without-reference"],
        beta=settings.beta,
        override=tuple(settings.override),
        stored_reference=stored_reference,
        cache=cache,
        reference_device=settings.reference_device,
        servers=servers,
        options=LoadOptions(
            device=settings.device, dtype=settings.dtype, attention=settings.attention,
            trust_remote_code=settings.trust_remote_code,
        ),
    )  # fmt: skip


def _servers(settings: ScoreSettings) -> Servers | None:
    """The inference servers that settings name, if any."""
    if settings.policy_url is None:
        if settings.reference_url is not None or settings.server_options:
            name = "--server-option" if settings.reference_url is None else "--reference-url"
            raise ConfigError(f"{name}: is for scoring by servers; give the trained model's too: --policy-url")
        return None
    for flag, value in (("--token-budget", settings.token_budget), ("--max-memory", settings.max_memory)):
        if value is not None:
            raise ConfigError(f"{flag}: is for models that are loaded here; servers make up their batches")
    named = {"policy_url": settings.policy_url, "reference_url": settings.reference_url}
    return build(Servers, [settings.server_options, named])


def max_memory_of(settings: ScorerSettings) -> int | None:
    """Bytes that models and a batch may take of a device, where settings say it.

    Raises:
        ConfigError: no size, or tokens of a batch are given too.
    """
    if settings.max_memory is None:
        return None
    if settings.token_budget is not None:
        raise ConfigError("max_memory, token_budget: both decide the tokens of a batch; give one of the two")
    return read_size(settings.max_memory)


def _refuse(options: Mapping[str, object], why: str) -> None:
    """Raise a ConfigError for the first option of log-ratios that is set."""
    if name := next((name for name, value in options.items() if value), ""):
        raise ConfigError(f"{name}: is for log-ratios; {why}")


def scorer_name(name: str | None, reward: str) -> str:
    """The scorer's name in rows; without `name` for the reference alone, which does not depend on the policy."""
    return reward if name is None or reward == "reference-only" else f"{name} {reward}"


def file_name(scorer: str) -> str:
    """The name of a scorer's rows file, without its ending."""
    return "".join(character if character.isalnum() or character in "-_" else "-" for character in scorer)


def _token_rate(advance: Advance) -> Callable[[int], None]:
    """A callback that shows tokens a second."""
    started, passed = time.perf_counter(), 0

    def count(n_tokens: int) -> None:
        nonlocal passed
        passed += n_tokens
        advance(0, f"{passed / (time.perf_counter() - started):,.0f} tokens/s")

    return count


def _parts(rollouts: Sequence[Rollout], size: int) -> list[Part]:
    """Rollouts in order, `size` to a part on average, in parts of about as many tokens.

    Responses to one prompt, whose beginning the models then read once, stay together, up to `size` of them. Parts
    depend on the rollouts alone, so that any number of workers, and a resumed run, compute the same.
    """
    together = [
        own[start : start + size]
        for _, found in groupby(rollouts, key=lambda rollout: rollout.problem_id)
        for own in [list(found)]
        for start in range(0, len(own), size)
    ]
    tokens = iter(_lengths(rollouts))
    sizes = [sum(islice(tokens, len(own))) for own in together]
    n_parts, total, before = -(-len(rollouts) // size), sum(sizes), 0
    made: dict[int, list[Rollout]] = {}
    for own, n_tokens in zip(together, sizes, strict=True):
        made.setdefault((2 * before + n_tokens) * n_parts // (2 * total), []).extend(own)  # by its middle
        before += n_tokens
    return [Part(number=number, rollouts=tuple(own)) for number, own in enumerate(made.values())]


def _lengths(rollouts: Sequence[Rollout]) -> list[int]:
    """Tokens of each, prompt included, as sampling counted them; without its counts, bytes of the texts."""
    noted = [(rollout.extra.get("n_prompt_tokens"), rollout.extra.get("n_generated_tokens")) for rollout in rollouts]
    counted = [prompt + response for prompt, response in noted if isinstance(prompt, int) and isinstance(response, int)]
    if len(counted) == len(rollouts):
        return [max(1, n_tokens) for n_tokens in counted]
    return [max(1, len(f"{rollout.prompt}{rollout.response}".encode(errors="replace"))) for rollout in rollouts]


def _done(run: RunFolder, parts: Sequence[Part], written: _Written) -> set[int]:
    """Numbers of the parts that are finished and whose rows are all written."""
    noted = {part["part"]: part for part in run.parts()}
    everywhere = set.intersection(*written.values())
    return {
        part.number
        for part in parts
        if part.number in noted
        and all(
            (rollout.problem_id, rollout.sample_idx) in everywhere
            for index, rollout in enumerate(part.rollouts)
            if index not in noted[part.number][_LEFT_OUT]
        )
    }


def _append(run: RunFolder, scored: ScoredPart, *, written: _Written) -> None:
    """Append a part's missing rows, then note that it is finished."""
    for scorer, rows in scored.rows.items():
        run.append(file_name(scorer), [row for row in rows if _key(row) not in written[scorer]])
    run.log_part({
        "part": scored.part, _LEFT_OUT: scored.left_out, "counts": dict(scored.counts),
        "sequence_tokens": scored.sequence_tokens,
        "readings": {what: asdict(reading) for what, reading in scored.readings.items()},
    })  # fmt: skip


def _key(row: Row) -> tuple[str, int]:
    return row["problem_id"], row["sample_idx"]


def _finish_rows(run: RunFolder, rollouts: Sequence[Rollout], scorers: Sequence[str]) -> int:
    """Sort each file into the order of the rollouts; returns the number of rows of one."""
    rank = {(rollout.problem_id, rollout.sample_idx): index for index, rollout in enumerate(rollouts)}
    n_rows = 0
    for scorer in scorers:
        written = run.rows(file_name(scorer))
        rows = sorted(written, key=lambda row: rank[_key(row)])
        if rows != written:
            run.rewrite(file_name(scorer), rows)
        n_rows = len(rows)
    return n_rows


def _cost(run: RunFolder, shape: ModelShape, counts: Counter[str]) -> Cost:
    """The cost of all rows, of all sessions; adds what was left out or cut to `counts`."""
    parts = {part["part"]: part for part in run.parts()}.values()
    for part in parts:
        counts.update(part["counts"])
    usages = [{what: ModelUsage(**reading) for what, reading in part["readings"].items()} for part in parts]
    mean_length = sum(part["sequence_tokens"] for part in parts) / max(counts["scored"], 1)
    return scoring_cost(usages, shape, mean_length=mean_length)
