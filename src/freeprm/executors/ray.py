"""The work of a stage on a Ray cluster, through Ray Data: `map_batches` over a pool of actors that hold the model.

Blocks and results are sent as pickled bytes, so that Ray's tables cannot change them. A block's results are returned
when the whole block is finished, to the caller, which has the run folder.
"""

import importlib
import logging
import os
import pickle
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar

from freeprm.errors import ConfigError, FreePRMError, WorkerError, needs_extra
from freeprm.executors.base import Item, Result, Worker

_COLUMN = "pickled"


@dataclass(frozen=True, kw_only=True)
class Ray:
    """Workers on a Ray cluster, each an actor that makes its worker once."""

    address: str | None = None
    """Of the cluster, e.g. `auto` or `ray://head:10001`. By default the one that Ray is connected to or finds
    (RAY_ADDRESS, or one started on this machine), else one that is started for the run."""
    workers: int = 2
    """Actors. Results do not depend on their number."""
    cpus_per_worker: float = 1.0
    gpus_per_worker: float = 0.0
    """GPUs for each actor, e.g. vLLM's `tensor_parallel_size`."""
    block: int | None = None
    """Items (samples, responses) of a block; by default decided by the stage. A lost worker's block is repeated."""
    blocks_in_flight: int = 2
    """Blocks sent to each actor ahead of time."""
    restarts: int = 3
    """Times that an actor which died is restarted, and its block repeated, before it is an error."""
    runtime_env: Mapping[str, Any] | None = None
    """Ray's runtime environment of the actors, e.g. {"env_vars": {...}}."""
    show_logs: bool = False
    """Show what Ray and the workers print."""

    remote: ClassVar[bool] = True

    def __post_init__(self) -> None:
        for name in ("workers", "blocks_in_flight"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name}: is {getattr(self, name)}; expected 1 or more")
        if self.block is not None and self.block < 1:
            raise ConfigError(f"block: is {self.block}; expected 1 item or more")

    def run(self, make: Callable[[], Worker[Item, Result]], blocks: Sequence[Sequence[Item]]) -> Iterator[Result]:
        """See `Executor`.

        Raises:
            MissingExtraError: Ray is not installed.
            WorkerError: a worker failed with another error, or its actor died too often.
        """
        if not blocks:
            return
        ray = _ray()
        with self._connected(ray), _quiet(ray, show_logs=self.show_logs):
            try:
                for row in self._dataset(ray, make, blocks).iter_rows():
                    results, error = pickle.loads(row[_COLUMN])
                    if error is not None:
                        raise error
                    yield from results
            except ray.exceptions.RayError as error:
                raise WorkerError(
                    f"a worker was lost {self.restarts + 1} times on one block ({_first_line(error)}); mostly too "
                    "little memory. The same command goes on from what is finished"
                ) from error

    @contextmanager
    def _connected(self, ray: Any) -> Iterator[None]:
        """Connect to a cluster; an existing connection is used and kept."""
        if ray.is_initialized():
            yield
            return
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        try:
            ray.init(
                address=self.address, include_dashboard=False, log_to_driver=self.show_logs,
                logging_level=logging.INFO if self.show_logs else logging.ERROR,
            )  # fmt: skip
        except (ConnectionError, ValueError, RuntimeError) as error:
            raise ConfigError(
                f"address: no Ray cluster at {self.address!r} ({_first_line(error)}); start one with "
                "`ray start --head`, or leave the address out"
            ) from error
        try:
            yield
        finally:
            ray.shutdown()

    def _dataset(self, ray: Any, make: Callable[[], Worker[Item, Result]], blocks: Sequence[Sequence[Item]]) -> Any:
        rows = [{_COLUMN: pickle.dumps(list(block))} for block in blocks]
        pool = ray.data.ActorPoolStrategy(
            size=min(self.workers, len(blocks)), max_tasks_in_flight_per_actor=self.blocks_in_flight
        )
        with warnings.catch_warnings():  # Ray 2.60 announces another way to limit restarts, which it does not have yet
            warnings.simplefilter("ignore", DeprecationWarning)
            return ray.data.from_items(rows, override_num_blocks=len(rows)).map_batches(
                _Actor,
                fn_constructor_args=(make,),
                batch_size=1,
                batch_format="pyarrow",
                compute=pool,
                num_cpus=self.cpus_per_worker,
                num_gpus=self.gpus_per_worker or None,
                runtime_env=dict(self.runtime_env) if self.runtime_env else None,
                max_restarts=self.restarts,
                max_task_retries=self.restarts,
            )


class _Actor:
    """An actor in the cluster. Errors are returned as results, since Ray would wrap them in its own."""

    def __init__(self, make: Callable[[], Worker[Any, Any]]):
        self._worker: Worker[Any, Any] | None = None
        self._error: FreePRMError | None = None
        try:
            self._worker = make()
        except Exception as error:  # raised with the first block, since an actor cannot report a failed start
            self._error = _ours(error)

    def __call__(self, table: Any) -> Any:
        """Args: one row, a pickled block. Returns one row, its pickled results or error."""
        import pyarrow

        done = [pickle.dumps(self._results(pickle.loads(item.as_py()))) for item in table.column(_COLUMN)]
        return pyarrow.table({_COLUMN: pyarrow.array(done, type=pyarrow.large_binary())})

    def _results(self, block: Sequence[Any]) -> tuple[list[Any], FreePRMError | None]:
        if self._worker is None:
            return [], self._error
        try:
            return list(self._worker(block)), None
        except Exception as error:  # whatever it was, it is raised where the results are read
            return [], _ours(error)


def _ours(error: Exception) -> FreePRMError:
    if isinstance(error, FreePRMError):
        return error
    return WorkerError(f"a worker failed: {type(error).__name__}: {error}")


def _ray() -> Any:
    with needs_extra("ray", "the executor `ray`"):
        importlib.import_module("ray.data")
    return importlib.import_module("ray")


@contextmanager
def _quiet(ray: Any, *, show_logs: bool) -> Iterator[None]:
    """Ray Data without its progress bars and messages."""
    context, logger = ray.data.DataContext.get_current(), logging.getLogger("ray.data")
    before = context.enable_progress_bars, logger.level
    context.enable_progress_bars = False
    logger.setLevel(logging.INFO if show_logs else logging.CRITICAL)
    try:
        yield
    finally:
        context.enable_progress_bars, level = before
        logger.setLevel(level)


def _first_line(error: BaseException) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__


PLUGIN = Ray
