"""One thread that works on whatever has arrived since it last looked: many small requests become one large one.

A row costs as much as ten do: what a call costs is mostly not the rows. While the thread works on some, others arrive,
and they are taken together.
"""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

Job = TypeVar("Job")
Answer = TypeVar("Answer")

# More at once make those wait that come after, and gain nothing.
_MOST_AT_ONCE = 64


class Batcher(Generic[Job, Answer]):
    """A thread that answers jobs of an event loop, several at a time.

    Args:
        work: answers [n] of jobs [n]; an answer that is an exception is raised where its job was asked.
        name: of the thread.
    """

    def __init__(self, work: Callable[[Sequence[Job]], Sequence[Answer | BaseException]], name: str) -> None:
        self._work = work
        self._arrived: queue.SimpleQueue[tuple[Job, asyncio.Future[Answer]] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    async def ask(self, job: Job) -> Answer:
        """The answer of a job. Who is cancelled while it waits is not worked for, unless that has begun."""
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._arrived.put((job, future))
        return await future

    def stop(self) -> None:
        """End the thread when it has answered what arrived before."""
        self._arrived.put(None)
        self._thread.join()

    def _run(self) -> None:
        while True:
            some = self._some()
            wanted = [each for each in some if each is not None and not each[1].cancelled()]
            if wanted:
                answers = self._answers([job for job, _ in wanted])
                wanted[0][1].get_loop().call_soon_threadsafe(_tell, [future for _, future in wanted], answers)
            if None in some:
                return

    def _some(self) -> list[tuple[Job, asyncio.Future[Answer]] | None]:
        """What has arrived, at least one; nothing after what ends the thread."""
        some = [self._arrived.get()]
        while some[-1] is not None and len(some) < _MOST_AT_ONCE and not self._arrived.empty():
            some.append(self._arrived.get())
        return some

    def _answers(self, jobs: Sequence[Job]) -> Sequence[Answer | BaseException]:
        try:
            return self._work(jobs)
        except Exception as error:  # a fault of ours: it must reach who asked, and must not end the thread
            return [error] * len(jobs)


def _tell(futures: Sequence[asyncio.Future[Answer]], answers: Sequence[Answer | BaseException]) -> None:
    for future, answer in zip(futures, answers, strict=True):
        if future.cancelled():
            continue
        if isinstance(answer, BaseException):
            future.set_exception(answer)
        else:
            future.set_result(answer)
