"""What all stages have in common: their call, their inputs and their result.

    sampled = freeprm.sample("arithmetic", n_problems=100, out="runs/rollouts")
    graded = freeprm.grade(sampled)

A stage reads rows and writes a run folder. It is called with inputs and its settings by name, or with a settings
object (`stage.run`); the same call resumes an interrupted run, and returns a finished one without any work.
"""

import hashlib
import inspect
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass, replace
from os import PathLike, fspath
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, ParamSpec, TypeVar

from freeprm.core.answers import Verdict, extract
from freeprm.core.curation import Operation, recalled
from freeprm.core.steps import check_settling
from freeprm.datasets._reading import limited, load_problems, readers_of
from freeprm.errors import ConfigError, RecordError, RunFolderError, needs_extra
from freeprm.io.config import build
from freeprm.io.files import MANIFEST, content_hash, read_rows
from freeprm.io.manifest import plain, read_cost
from freeprm.io.plugins import built
from freeprm.io.rollouts import problem_row, rollout_row
from freeprm.io.rows import Row, write_rows
from freeprm.io.runs import METRICS, read_manifest, read_metrics
from freeprm.settings import Drawing, EarlyStopping, File, RunSettings, SampleEarlySettings, SearchSettings
from freeprm.types import Cost, Metric, Problem, Rollout

if TYPE_CHECKING:
    from datasets import Dataset
    from freeprm.engines.hf import judging
    from freeprm.engines.hf.engine import HFEngine
    from freeprm.scorers.implicit import ImplicitPRM

P = ParamSpec("P")
S = TypeVar("S", bound=RunSettings)

Item = File | Mapping[str, Any] | Rollout | Problem
Inputs = File | Iterable[Item]
"""A path, an earlier stage's result, or several; or rows: mappings, rollouts, problems, a `datasets.Dataset`."""
RUNS = Path("runs")
"""Parent of run folders without `out`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunResult:
    """A stage's result, and a path that the next stage takes."""

    folder: Path
    """The run folder; or the file that `convert` wrote."""
    metrics: list[Metric]
    """Numbers with their intervals; empty for stages that measure nothing."""
    counts: Mapping[str, Any]
    """Records read, made, missing or left out, by reason."""
    cost: Cost = field(compare=False)
    """Tokens, FLOPs and seconds of all sessions; not compared, since equal results may take different times."""
    operations: list[Operation]
    """Operations on the data, in order; of `pair` and `train`."""

    def __fspath__(self) -> str:
        return str(self.folder)

    def __str__(self) -> str:
        return str(self.folder)

    @property
    def log(self) -> list[dict[str, float]]:
        """The training log, a row for each step; empty for other stages."""
        file = self.folder / "log.json"
        made: list[dict[str, float]] = json.loads(file.read_text(encoding="utf-8")) if file.exists() else []
        return made

    def rows(self, name: str | None = None) -> Iterator[Row]:
        """The rows of `<name>.jsonl`, or all; a RecordError if there are none."""
        for _, row in read_rows(self.folder / f"{name}.jsonl" if name else self.folder):
            if isinstance(row, RecordError):
                raise row
            yield row

    def to_dataset(self, name: str | None = None) -> "Dataset":
        """The rows as a `datasets.Dataset`; a MissingExtraError without the package."""
        with needs_extra("datasets", "to_dataset"):
            from datasets import Dataset

        return Dataset.from_list(list(self.rows(name)))

    def to_pandas(self, name: str | None = None) -> Any:
        """The rows as a `pandas.DataFrame`."""
        return self.to_dataset(name).to_pandas()

    @classmethod
    def load(cls, path: File) -> "RunResult":
        """The result of a finished run, from its folder; a RunFolderError if there is none."""
        folder = Path(path)
        manifest = read_manifest(folder) if folder.is_dir() else _beside(folder)
        if manifest is None or manifest.get("status") != "complete":
            raise RunFolderError(
                f"{folder}: {'no' if manifest is None else 'an unfinished'} run; expected a finished one"
            )
        counts, operations = recalled(manifest["counts"])
        return cls(
            folder=folder,
            metrics=read_metrics(folder) if (folder / METRICS).exists() else [],
            counts=counts,
            cost=read_cost(manifest["cost"]),
            operations=operations,
        )


Work = Callable[[Any, S, Path], RunResult]
"""The function of a stage: inputs, settings, run folder."""
Read = Callable[[Any, Path], Any]
"""Inputs of the call -> inputs of the work; rows are written to the folder."""


class Stage(Generic[P, S]):
    """A stage: call it with inputs and settings by name; or `run` it with a settings object.

    Args:
        settings: the dataclass of its settings.
        work: its function.
        read: inputs of the call -> inputs of `work`; by default paths.
    """

    def __init__(self, settings: Callable[P, S], work: Work[S], read: Read | None = None):
        self.settings = settings
        """Makes a settings object."""
        self._work, self._read = work, read or paths_of
        self.__name__ = getattr(work, "__name__", "stage")
        self.__module__ = work.__module__
        self.__doc__ = work.__doc__
        first = inspect.Parameter("inputs", inspect.Parameter.POSITIONAL_ONLY, annotation=Inputs)
        options = inspect.signature(settings).parameters.values()
        self.__signature__ = inspect.Signature([first, *options], return_annotation=RunResult)

    def __call__(self, inputs: Inputs, /, *args: P.args, **kwargs: P.kwargs) -> RunResult:
        """Run the stage with the fields of its settings.

        Raises:
            FreePRMError: bad settings, inputs, models or run folders; says which and what to do.
        """
        return self.run(inputs, self.settings(*args, **kwargs))

    def __reduce__(self) -> str:
        return self.__name__  # pickled by its name in its module

    def run(self, inputs: Inputs, settings: S) -> RunResult:
        """Run the stage with a settings object."""
        checked = _checked(settings)
        store = RUNS if checked.out is None else Path(checked.out).parent
        read = self._read(inputs, store / "inputs")
        out = _address(self.__name__, read, checked) if checked.out is None else Path(checked.out)
        return self._work(read, checked, out)


def stage(settings: Callable[P, S], *, read: Read | None = None) -> Callable[[Work[S]], Stage[P, S]]:
    """Decorator that makes a stage of its function."""
    return lambda work: Stage(settings, work, read)


def paths_of(inputs: Inputs, store: Path) -> list[Path]:
    """Inputs as paths; rows are written to a file in `store`, named by their contents."""
    if isinstance(inputs, str | PathLike):
        return [Path(inputs)]
    items = _items(inputs)
    if any(isinstance(item, str | PathLike) for item in items):
        if strange := [item for item in items if not isinstance(item, str | PathLike)]:
            raise ConfigError(f"inputs: {_short(strange[0])} stands among paths; expected paths alone, or rows alone")
        return [Path(item) for item in items if isinstance(item, str | PathLike)]
    rows = [_row(item) for item in items]
    digest = hashlib.sha256("\n".join(json.dumps(plain(row), default=str) for row in rows).encode()).hexdigest()
    file = store / f"{digest[:12]}.jsonl"
    if not file.exists():
        store.mkdir(parents=True, exist_ok=True)
        write_rows(file, rows)
    return [file]


def problems_of(inputs: Inputs, store: Path) -> Sequence[str | Problem]:
    """A dataset's name or a path of rows; or problems themselves."""
    if isinstance(inputs, str | PathLike):
        return [fspath(inputs)]
    items = _items(inputs)
    problems = [item for item in items if isinstance(item, Problem)]
    return problems if problems and len(problems) == len(items) else [str(path) for path in paths_of(items, store)]


def choose_problems(problems: Sequence[str | Problem], settings: Drawing) -> tuple[str, list[Problem]]:
    """The source of the problems, for the manifest, and the problems to sample."""
    in_memory = [problem for problem in problems if isinstance(problem, Problem)]
    if in_memory:
        return "given", limited(in_memory, settings.n_problems, settings.problem_seed)
    if len(problems) != 1:
        raise ConfigError(f"inputs: are {len(problems)} sources of problems; expected one")
    name = str(problems[0])
    try:
        chosen = load_problems(
            name, split=settings.split, limit=settings.n_problems, seed=settings.problem_seed,
            options=settings.dataset_options,
        )  # fmt: skip
    except RecordError as error:
        others = readers_of(name)
        advice = f". The rows are {' or '.join(others)}: give that name, and --dataset-option path={name}"
        raise RecordError(f"{error}{advice if others else ''}") from error
    return name, chosen


def sample_sizes(
    n: Sequence[int] | None, available: Sequence[int], *, default: Callable[[int], Iterable[int]]
) -> list[int]:
    """The numbers of samples to choose from, ascending: `n`, or `default` of the most frequent number available.

    Raises:
        ConfigError: none, below 1, or more than any problem has.
    """
    usual = max(Counter(available).items(), key=lambda item: (item[1], item[0]))[0]
    sizes = sorted({*(default(usual) if n is None else n)})
    if not sizes or not 1 <= sizes[0] <= sizes[-1] <= max(available):
        raise ConfigError(f"n is {list(n or ())}; expected 1 to {max(available)}, the most samples that a problem has")
    return sizes


Judge = Callable[[str | None, str | None], Verdict]
"""Answer and gold answer -> whether they are equivalent."""


def completed(rollout: Rollout, judge: Judge) -> Rollout:
    """A rollout with missing answer and label added; no label if grading has refused one."""
    pred = extract(rollout.response) if rollout.pred is None else rollout.pred
    known = rollout.correct is not None or rollout.extra.get("grade_reason") is not None
    return replace(rollout, pred=pred, correct=rollout.correct if known else judge(pred, rollout.answer).correct)


def loaded_prm(settings: EarlyStopping | SearchSettings, *, device: str | None, dtype: str | None) -> "ImplicitPRM":
    """The reward model that leads.

    Raises:
        ConfigError: there is none.
        ModelError: it cannot be loaded, or is another kind of model.
    """
    from freeprm.core.rewards import check_reward
    from freeprm.models.loading import check_dtype
    from freeprm.scorers.implicit import ImplicitPRM

    check_reward(settings.reward)
    if isinstance(settings.prm, ImplicitPRM):
        return _of_whole(settings.prm)
    if settings.prm is None:
        raise ConfigError("prm: is missing; give the reward model that is to choose, --prm FOLDER")
    prm = ImplicitPRM.from_pretrained(
        settings.prm, reference=settings.reference, load_reference=settings.reward != "without-reference",
        device=device, dtype=check_dtype(dtype or "auto"),
    )  # fmt: skip
    return _of_whole(prm)


def _of_whole(prm: "ImplicitPRM") -> "ImplicitPRM":
    """Raises: ConfigError, if it does not score a response from its beginning on."""
    if prm.config.reasoning != "include":
        raise ConfigError(
            f"prm: {prm.policy.source} takes reasoning {prm.config.reasoning}, so its steps are not known while a "
            "response is written; score whole samples: freeprm score ROLLOUTS --prm FOLDER"
        )
    return prm


class Guide(NamedTuple):
    """What draws and what leads it."""

    prm: "ImplicitPRM"
    engine: "HFEngine"
    judge: "judging.Judge"


def guided(settings: SampleEarlySettings | SearchSettings, *, drops_changed: bool = False) -> Guide:
    """The engine that draws step by step, and the reward model that scores the steps.

    Args:
        settings: of the stage.
        drops_changed: see `Judge`.

    Raises:
        ConfigError: a splitter whose steps are not known before the end; or see `loaded_prm`.
        ModelError: see `loaded_prm`.
    """
    from freeprm.engines.hf.judging import Judge
    from freeprm.models.incremental import StepwiseRewards
    from freeprm.models.reference_logprobs import key_of

    if settings.splitter is not None:
        check_settling(settings.splitter)
    options = settings.engine_options
    prm = loaded_prm(settings, device=options.get("device"), dtype=options.get("dtype"))
    splitter = check_settling(settings.splitter or prm.config.splitter)
    engine: HFEngine = built("engines", "hf", [options, {"model": settings.model}])
    reference = prm.reference
    key = None if reference is None else key_of(reference.folder, reference.tokenizer, dtype=reference.dtype)
    judge = Judge(
        rewards=StepwiseRewards(policy=prm.policy, reference=reference, reward=settings.reward, beta=prm.config.beta),
        tokenizer=prm.policy.tokenizer, max_length=prm.policy.max_length, splitter=splitter,
        reference_draws=key is not None and engine.key() == key, drops_changed=drops_changed,
    )  # fmt: skip
    return Guide(prm, engine, judge)


def _items(inputs: Iterable[Item]) -> list[Item]:
    """Several inputs, or rows; a ConfigError for anything else."""
    if isinstance(inputs, Mapping | Rollout | Problem) or not isinstance(inputs, Iterable):
        raise ConfigError(f"inputs: is {_short(inputs)}; expected a path, an earlier result, or several; or rows")
    if type(inputs).__name__ == "DataFrame":
        raise ConfigError("inputs: is a data frame; give its rows, frame.to_dict('records')")
    return list(inputs)


def _row(item: object) -> Mapping[str, Any]:
    if isinstance(item, Rollout):
        return rollout_row(item)
    if isinstance(item, Problem):
        return problem_row(item)
    if isinstance(item, Mapping):
        return item
    raise ConfigError(f"inputs: {_short(item)} is no row; expected paths, mappings, rollouts or problems")


def _short(value: object) -> str:
    return f"{str(value)[:60]!r}, a {type(value).__name__}"


def _checked(settings: S) -> S:
    """The settings with values converted to the types of the fields."""
    assert is_dataclass(settings)
    values = {item.name: getattr(settings, item.name) for item in fields(settings)}
    made: S = build(type(settings), [values])
    return made


def _address(name: str, inputs: Any, settings: RunSettings) -> Path:
    """A folder named by a hash of the call, so that the same call resumes."""
    decided = {
        "stage": name,
        "settings": plain({item.name: getattr(settings, item.name) for item in fields(settings)}),
        "inputs": [content_hash(item) if isinstance(item, Path) else item for item in inputs],
    }
    digest = hashlib.sha256(json.dumps(decided, sort_keys=True, default=str).encode()).hexdigest()
    return RUNS / f"{name}-{digest[:12]}"


def _beside(file: Path) -> dict[str, Any] | None:
    """The manifest beside a file that `convert` wrote."""
    try:
        manifest: dict[str, Any] = json.loads(file.with_name(f"{file.name}.{MANIFEST}").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return manifest
