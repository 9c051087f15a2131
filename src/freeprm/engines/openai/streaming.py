"""Asynchronous work behind an ordinary iterator: an event loop in a thread, results as they come."""

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from queue import SimpleQueue
from threading import Thread
from typing import Any, TypeVar

T = TypeVar("T")
_ENDED = object()


def streamed(work: Callable[[Callable[[T], None]], Coroutine[Any, Any, None]]) -> Iterator[T]:
    """What `work` gives through the function that it is called with, then the error that ended it, if any.

    Closing the iterator, or an interrupt while it waits, cancels the work and returns when it has ended.
    """
    queue: SimpleQueue[Any] = SimpleQueue()
    loop = asyncio.new_event_loop()
    task = loop.create_task(work(queue.put))
    thread = Thread(target=_run, args=(loop, task, queue), name="freeprm-openai", daemon=True)
    thread.start()
    try:
        while (item := queue.get()) is not _ENDED:
            yield item
    finally:
        loop.call_soon_threadsafe(task.cancel)
        thread.join()
        loop.close()
    task.result()


def _run(loop: asyncio.AbstractEventLoop, task: "asyncio.Task[None]", queue: SimpleQueue[Any]) -> None:
    asyncio.set_event_loop(loop)
    try:
        loop.run_until_complete(asyncio.wait([task]))
        if not task.cancelled():
            task.exception()  # noted as seen, also where nobody asks for the result any more
        loop.run_until_complete(loop.shutdown_asyncgens())
    finally:
        queue.put(_ENDED)
