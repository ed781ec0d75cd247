"""One thread that writes: what waits while a transaction is on its way to the disk shares the next one."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from collections.abc import Callable
from queue import Empty, SimpleQueue
from threading import Thread
from typing import Any, NamedTuple, TypeVar

from glowsim.core.errors import GlowsimError
from glowsim.live.store.database import StoreError

__all__ = ["Work", "Writer"]

_T = TypeVar("_T")
Work = Callable[[sqlite3.Connection], _T]
_log = logging.getLogger(__name__)


class _Job(NamedTuple):
    work: Work[Any]
    then: Callable[[Any], None] | None
    done: asyncio.Future[Any]


class Writer:
    """Carries out work on a database, in order, and says when it is committed.

    Parameters
    ----------
    connection
        In autocommit mode; the writer closes it.
    batch
        Pieces of work in one transaction at most, at least 1.
    waiting
        Pieces of work that may wait, at least 1; `done` waits for room.

    Raises
    ------
    RuntimeError
        No event loop is running.
    """

    def __init__(self, connection: sqlite3.Connection, *, batch: int = 256, waiting: int = 1024) -> None:
        self._connection = connection
        self._batch = batch
        self._loop = asyncio.get_running_loop()
        self._room = asyncio.Semaphore(waiting)
        self._jobs: SimpleQueue[_Job | None] = SimpleQueue()
        self._closed = False
        self._thread = Thread(target=self._run, name="glowsim-store", daemon=True)
        self._thread.start()

    async def done(self, work: Work[_T], then: Callable[[_T], None] | None = None) -> _T:
        """Have something done in a transaction; return what it returned, once that is committed.

        Parameters
        ----------
        work
            Is given the connection, in the writer's thread; what it did is undone if it raises.
        then
            Is called with the result in the event loop, in the order of the commits and before this returns; also
            if nobody waits any more.

        Raises
        ------
        StoreError
            The database cannot be written, or the writer is closed; nothing was done.
        GlowsimError
            Whatever ``work`` raised.
        """
        await self._room.acquire()
        try:
            submitted = self.submit(work, then)
        except StoreError:
            self._room.release()
            raise
        submitted.add_done_callback(lambda _: self._room.release())
        return await asyncio.shield(submitted)

    def submit(self, work: Work[_T], then: Callable[[_T], None] | None = None) -> asyncio.Future[_T]:
        """Have something done in its turn, without waiting for room."""
        if self._closed:
            raise StoreError("the store is closed")
        job = _Job(work, then, self._loop.create_future())
        self._jobs.put(job)
        return job.done

    async def close(self) -> None:
        """Do what waits, and close the database."""
        if not self._closed:
            self._closed = True
            self._jobs.put(None)
            await asyncio.to_thread(self._thread.join)

    # --- in the writer's thread -----------------------------------------------------------------------

    def _run(self) -> None:
        last = False
        while not last:
            jobs = [self._jobs.get()]
            while len(jobs) < self._batch:
                try:
                    jobs.append(self._jobs.get_nowait())
                except Empty:
                    break
            last = jobs[-1] is None
            batch = [job for job in jobs if job is not None]
            outcomes = self._write(batch) if batch else []
            self._loop.call_soon_threadsafe(self._tell, batch, outcomes)
        self._connection.close()

    def _write(self, batch: list[_Job]) -> list[Any]:
        """Return what became of every piece of work: its result, or what it raised."""
        try:
            self._connection.execute("BEGIN IMMEDIATE")
            outcomes = [self._one(job.work) for job in batch]
            self._commit()
        except sqlite3.Error as error:
            _log.error("the store cannot be written: %s", error)
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
            return [StoreError(f"the store cannot be written: {error}; nothing was kept")] * len(batch)
        return outcomes

    def _one(self, work: Work[Any]) -> Any:
        self._connection.execute("SAVEPOINT one")
        try:
            outcome: Any = work(self._connection)
        except GlowsimError as error:
            outcome = error
        except sqlite3.IntegrityError as error:
            outcome = StoreError(f"the store takes no such row: {error}")
        except sqlite3.Error:
            raise  # of the database, not of this work
        except Exception as error:  # noqa: BLE001  its caller is told; the others in the batch are not to blame
            _log.exception("a piece of work failed in the store")
            outcome = error
        if isinstance(outcome, Exception):
            self._connection.execute("ROLLBACK TO one")
        self._connection.execute("RELEASE one")
        return outcome

    def _commit(self) -> None:
        self._connection.execute("COMMIT")

    # --- in the event loop ----------------------------------------------------------------------------

    def _tell(self, batch: list[_Job], outcomes: list[Any]) -> None:
        for job, outcome in zip(batch, outcomes, strict=True):
            if isinstance(outcome, Exception):
                job.done.set_exception(outcome)
                continue
            try:
                if job.then is not None:
                    job.then(outcome)
            except Exception as error:  # noqa: BLE001  its caller is told; the others are told of theirs
                _log.exception("what follows a commit failed")
                job.done.set_exception(error)
            else:
                job.done.set_result(outcome)
