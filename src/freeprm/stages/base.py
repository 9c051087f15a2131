"""What all stages have in common: how they are called, what they take, and what they give back.

    sampled = freeprm.sample("arithmetic", n_problems=100, out="runs/rollouts")
    graded = freeprm.grade(sampled)

A stage reads rows and writes a run folder. It is called with inputs and its settings by name, or with a settings
object (`stage.run`); the same call goes on where it was interrupted, and gives a finished run back without any work.
"""

import hashlib
import inspect
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass, replace
from os import PathLike, fspath
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, TypeVar

from freeprm.core.answers import Verdict, extract
from freeprm.core.curation import Operation, recalled
from freeprm.datasets._reading import limited, load_problems, readers_of
from freeprm.errors import ConfigError, RecordError, RunFolderError, needs_extra
from freeprm.io.config import build
from freeprm.io.files import MANIFEST, content_hash, read_rows
from freeprm.io.manifest import plain, read_cost
from freeprm.io.rollouts import problem_row, rollout_row
from freeprm.io.rows import Row, write_rows
from freeprm.io.runs import METRICS, read_manifest, read_metrics
from freeprm.settings import Drawing, EarlyStopping, File, Settings
from freeprm.types import Cost, Metric, Problem, Rollout

if TYPE_CHECKING:
    from datasets import Dataset
    from freeprm.scorers.implicit import ImplicitPRM

P = ParamSpec("P")
S = TypeVar("S", bound=Settings)

Item = File | Mapping[str, Any] | Rollout | Problem
Inputs = File | Iterable[Item]
"""A path, an earlier stage's result, or several; or rows: mappings, rollouts, problems, a `datasets.Dataset`."""
RUNS = Path("runs")
"""Where run folders are made whose name is not given."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunResult:
    """What a stage made: a path like any other, which the next stage takes."""

    folder: Path
    """The run folder; the file, where `convert` wrote one."""
    metrics: list[Metric]
    """Numbers with their intervals; empty for stages that measure nothing."""
    counts: Mapping[str, Any]
    """What was read, made, missing or left out, by reason."""
    cost: Cost = field(compare=False)
    """Tokens, FLOPs and seconds of all sessions; the same result may take another time."""
    operations: list[Operation]
    """What was done to the data, in order; of `pair` and `train`."""

    def __fspath__(self) -> str:
        return str(self.folder)

    def __str__(self) -> str:
        return str(self.folder)

    @property
    def log(self) -> list[dict[str, float]]:
        """What training logged, step by step; nothing for other stages."""
        file = self.folder / "log.json"
        made: list[dict[str, float]] = json.loads(file.read_text(encoding="utf-8")) if file.exists() else []
        return made

    def rows(self, name: str | None = None) -> Iterator[Row]:
        """The rows that it made: those of `<name>.jsonl`, or all.

        Raises:
            RecordError: there are none.
        """
        for _, row in read_rows(self.folder / f"{name}.jsonl" if name else self.folder):
            if isinstance(row, RecordError):
                raise row
            yield row

    def to_dataset(self, name: str | None = None) -> "Dataset":
        """The rows as a `datasets.Dataset`.

        Raises:
            MissingExtraError: `datasets` is not installed; so for `to_pandas`.
        """
        with needs_extra("datasets", "to_dataset"):
            from datasets import Dataset

        return Dataset.from_list(list(self.rows(name)))

    def to_pandas(self, name: str | None = None) -> Any:
        """The rows as a `pandas.DataFrame`."""
        return self.to_dataset(name).to_pandas()

    @classmethod
    def load(cls, path: File) -> "RunResult":
        """What a finished run made, from its folder.

        Raises:
            RunFolderError: there is no finished run.
        """
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
"""What a stage does with the inputs and its settings, to the run folder named last."""
Read = Callable[[Any, Path], Any]
"""Makes of inputs as given what a stage takes; rows are written to the folder."""


class Stage(Generic[P, S]):
    """A stage: call it with inputs and settings by name; or `run` it with a settings object.

    Args:
        settings: the dataclass of its settings.
        work: what it does.
        read: inputs as given -> as `work` takes them; by default paths.
    """

    def __init__(self, settings: Callable[P, S], work: Work[S], read: Read | None = None):
        self.settings = settings
        """Of this stage; makes a settings object."""
        self._work, self._read = work, read or paths_of
        self.__name__ = getattr(work, "__name__", "stage")
        self.__module__ = work.__module__
        self.__doc__ = work.__doc__
        given = inspect.Parameter("inputs", inspect.Parameter.POSITIONAL_ONLY, annotation=Inputs)
        options = inspect.signature(settings).parameters.values()
        self.__signature__ = inspect.Signature([given, *options], return_annotation=RunResult)

    def __call__(self, inputs: Inputs, /, *args: P.args, **kwargs: P.kwargs) -> RunResult:
        """Run the stage; the settings are those of its settings' dataclass.

        Raises:
            FreePRMError: bad settings, inputs, models or run folders; says which and what to do.
        """
        return self.run(inputs, self.settings(*args, **kwargs))

    def __reduce__(self) -> str:
        return self.__name__  # to other processes, by its name in its module

    def run(self, inputs: Inputs, settings: S) -> RunResult:
        """Run the stage with a settings object.

        Raises:
            FreePRMError: as for a call.
        """
        checked = _checked(settings)
        store = RUNS if checked.out is None else Path(checked.out).parent
        given = self._read(inputs, store / "inputs")
        out = _address(self.__name__, given, checked) if checked.out is None else Path(checked.out)
        return self._work(given, checked, out)


def stage(settings: Callable[P, S], *, read: Read | None = None) -> Callable[[Work[S]], Stage[P, S]]:
    """Make a function the work of a stage with these settings."""

    def made(work: Work[S]) -> Stage[P, S]:
        return Stage(settings, work, read)

    return made


def paths_of(inputs: Inputs, store: Path) -> list[Path]:
    """Inputs as paths; rows are written to a file of `store` that is named by their contents.

    Raises:
        ConfigError: neither paths nor rows.
    """
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
    """What the manifest calls the problems, and those that are sampled.

    Raises:
        FreePRMError: as `load_problems`.
    """
    given = [problem for problem in problems if isinstance(problem, Problem)]
    if given:
        return "given", limited(given, settings.n_problems, settings.problem_seed)
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
    """The numbers of samples to choose among, ascending: as given, else `default` of what most problems have.

    Raises:
        ConfigError: none, below 1, or above what any problem has.
    """
    usual = max(Counter(available).items(), key=lambda item: (item[1], item[0]))[0]
    sizes = sorted({*(default(usual) if n is None else n)})
    if not sizes or not 1 <= sizes[0] <= sizes[-1] <= max(available):
        raise ConfigError(f"n is {list(n or ())}; expected 1 to {max(available)}, the most samples that a problem has")
    return sizes


Judge = Callable[[str | None, str | None], Verdict]
"""Given answer and gold answer -> whether they mean the same."""


def completed(rollout: Rollout, judge: Judge) -> Rollout:
    """A rollout with the answer and the label that its row lacks; what grading gave up on stays without label."""
    pred = extract(rollout.response) if rollout.pred is None else rollout.pred
    known = rollout.correct is not None or rollout.extra.get("grade_reason") is not None
    return replace(rollout, pred=pred, correct=rollout.correct if known else judge(pred, rollout.answer).correct)


def loaded_prm(settings: EarlyStopping, *, device: str | None, dtype: str | None) -> "ImplicitPRM":
    """The reward model that early stopping goes by.

    Raises:
        ConfigError: there is none.
        ModelError: it cannot be loaded, or is another kind of model.
    """
    from freeprm.core.rewards import check_reward
    from freeprm.models.loading import check_dtype
    from freeprm.scorers.implicit import ImplicitPRM

    check_reward(settings.reward)
    if isinstance(settings.prm, ImplicitPRM):
        return settings.prm
    if settings.prm is None:
        raise ConfigError("--early-stop: give the reward model that is to choose, --prm FOLDER")
    return ImplicitPRM.from_pretrained(
        settings.prm, reference=settings.reference, load_reference=settings.reward != "without-reference",
        device=device, dtype=check_dtype(dtype or "auto"),
    )  # fmt: skip


def _items(inputs: Iterable[Item]) -> list[Item]:
    """Several inputs, or rows.

    Raises:
        ConfigError: it is neither.
    """
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
    """With values of the types that the fields have."""
    assert is_dataclass(settings)
    values = {item.name: getattr(settings, item.name) for item in fields(settings)}
    made: S = build(type(settings), [values])
    return made


def _address(name: str, given: Any, settings: Settings) -> Path:
    """A folder named by the call, so that the same one goes on with it."""
    inputs = [content_hash(item) if isinstance(item, Path) else item for item in given]
    decided = {
        "stage": name,
        "settings": plain({item.name: getattr(settings, item.name) for item in fields(settings)}),
        "inputs": inputs,
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
