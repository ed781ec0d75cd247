"""The store: what it opens and refuses, that done means committed, and that nobody's failure is another's."""

from __future__ import annotations

import asyncio
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from glowsim.core.errors import GlowsimError
from glowsim.live.calls import Served
from glowsim.live.store import Store, StoreError
from glowsim.live.store.database import locked, open_database
from glowsim.live.store.migrations import MIGRATIONS
from glowsim.live.store.store import signed, unsigned
from glowsim.live.store.writer import Writer

ROOT = Path(__file__).resolve().parents[3]


def run(test, path, **given):
    """Run a test with a store."""

    async def main():
        store = Store(path, **({"keep_requests": 100} | given))
        try:
            async with asyncio.timeout(20.0):
                return await test(store)
        finally:
            await store.close()

    return asyncio.run(main())


def rows(path, query, *given):
    """Read with a connection of one's own: what is seen is committed."""
    connection = sqlite3.connect(path)
    try:
        return connection.execute(query, given).fetchall()
    finally:
        connection.close()


@pytest.fixture
def path(tmp_path):
    return tmp_path / "fleet.db"


def note(name, value):
    return lambda database: database.execute("INSERT INTO meta VALUES (?, ?)", (name, value)).rowcount


# --- opening ----------------------------------------------------------------------------------------


def test_a_fresh_store_is_for_its_owner_only_and_commits_to_the_disk(path):
    connection = open_database(path)
    assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert connection.execute("PRAGMA synchronous").fetchone() == (2,), "FULL"
    assert connection.execute("PRAGMA user_version").fetchone() == (len(MIGRATIONS),)
    connection.close()
    assert path.stat().st_mode & 0o077 == 0


def test_boots_are_counted_and_the_key_of_hashes_stays(path):
    async def look(store):
        return store.boot, store.hash_key

    (one, key), (two, again) = run(look, path), run(look, path)
    assert (one, two) == (1, 2)
    assert key == again
    assert len(key) == 32


def test_one_daemon_at_a_time(path):
    async def test(store):
        with pytest.raises(StoreError, match=r"fleet\.db is in use by process \d+: stop it"):
            Store(path, keep_requests=1)
        assert await store.done(note("still", 1)) == 1

    run(test, path)
    run(nothing, path)


async def nothing(store):
    return None


def test_the_lock_of_a_killed_process_is_free(path):
    script = (
        "import sys, time; from pathlib import Path; from glowsim.live.store.database import locked;"
        "lock = locked(Path(sys.argv[1])); print('held', flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", script, path], stdout=subprocess.PIPE, cwd=ROOT) as holder:
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(StoreError, match=f"process {holder.pid}"):
            locked(path)
        holder.kill()
    locked(path).close()


def test_what_is_no_store_is_refused_and_left_alone(path):
    path.write_bytes(b"not a database at all, but long enough to be read as one" * 20)
    before = path.read_bytes()
    with pytest.raises(StoreError, match=r"not a database, or damaged: .*move it away"):
        open_database(path)
    assert path.read_bytes() == before
    path.unlink()
    other = sqlite3.connect(path)
    other.execute("CREATE TABLE recipes (name)")
    other.close()
    with pytest.raises(StoreError, match="a database of something else"):
        open_database(path)
    assert rows(path, "SELECT name FROM sqlite_master") == [("recipes",)]


def test_a_damaged_store_is_said(path):
    connection = open_database(path)
    connection.execute("BEGIN")
    connection.executemany("INSERT INTO meta VALUES (?, ?)", [(f"n{i}", "x" * 500) for i in range(2000)])
    connection.execute("COMMIT")
    connection.close()
    data = bytearray(path.read_bytes())
    data[len(data) // 2 : len(data) // 2 + 40_000] = b"\xff" * 40_000
    path.write_bytes(data)
    with pytest.raises(StoreError, match="damaged"):
        open_database(path)


def test_a_folder_is_no_store(tmp_path):
    with pytest.raises(StoreError, match=r"cannot be opened to write: .*give another --store"):
        open_database(tmp_path)
    with pytest.raises(StoreError, match="cannot be written"):
        locked(tmp_path / "missing" / "fleet.db")


def test_a_newer_store_is_refused_by_name(path):
    connection = open_database(path)
    connection.execute("PRAGMA user_version=99")
    connection.close()
    with pytest.raises(StoreError, match=rf"fleet\.db is of store version 99, .* knows {len(MIGRATIONS)}"):
        open_database(path)


def test_an_older_store_is_copied_and_brought_up_to_date(path):
    connection = open_database(path)
    connection.execute("INSERT INTO meta VALUES ('mine', 7)")
    connection.close()

    def second(database):
        database.execute("UPDATE meta SET value = value + 1 WHERE name = 'mine'")

    def third(database):
        database.execute("CREATE TABLE more (it)")

    open_database(path, (*MIGRATIONS, second, third)).close()
    assert rows(path, "SELECT value FROM meta WHERE name = 'mine'") == [(8,)]
    copy = path.with_name(f"fleet.db.v{len(MIGRATIONS)}")
    assert rows(copy, "SELECT value FROM meta WHERE name = 'mine'") == [(7,)]
    assert copy.stat().st_mode & 0o077 == 0
    open_database(path, (*MIGRATIONS, second, third)).close()
    assert rows(path, "SELECT value FROM meta WHERE name = 'mine'") == [(8,)], "a migration is done once"


def test_what_version_1_remembers_of_requests_was_assigned_at_no_known_moment(path):
    connection = open_database(path, MIGRATIONS[:1])
    connection.execute("INSERT INTO requests_seen VALUES (7, 'j', 0, 1, 42, 0.05, 0, 1.5)")
    connection.close()
    open_database(path).close()
    assert rows(path, "SELECT request_id, variant, assigned_s FROM requests_seen") == [(7, 1, None)]


def test_a_migration_that_fails_leaves_the_version_before_it(path):
    open_database(path).close()

    def fails(database):
        database.execute("CREATE TABLE half (it)")
        database.execute("INSERT INTO nowhere VALUES (1)")

    with pytest.raises(StoreError, match="nowhere"):
        open_database(path, (*MIGRATIONS, fails))
    assert rows(path, "PRAGMA user_version") == [(len(MIGRATIONS),)]
    assert rows(path, "SELECT count(*) FROM sqlite_master WHERE name = 'half'") == [(0,)]
    open_database(path).close()


# --- writing ----------------------------------------------------------------------------------------


def test_done_means_that_another_connection_sees_it(path):
    async def test(store):
        for number in range(20):
            assert await store.done(note(f"n{number}", number)) == 1
            assert rows(path, "SELECT value FROM meta WHERE name = ?", f"n{number}") == [(number,)]

    run(test, path)


def test_what_one_raises_is_undone_and_others_in_its_batch_are_kept(path):
    class Mine(GlowsimError):
        pass

    def fails(database):
        database.execute("INSERT INTO meta VALUES ('half', 1)")
        raise Mine("not so")

    async def test(store):
        told = await asyncio.gather(
            *(
                store.done(work)
                for work in (note("a", 1), fails, note("a", 2), note("b", 3), lambda _: 1 / 0)
            ),
            return_exceptions=True,
        )
        assert (told[0], told[3]) == (1, 1)
        assert [type(each) for each in told[1:3]] == [Mine, StoreError]
        assert isinstance(told[4], ZeroDivisionError)
        assert await store.read(lambda database: dict(database.execute("SELECT * FROM meta"))) == {
            "boots": 1, "hash_key": store.hash_key, "a": 1, "b": 3,
        }  # fmt: skip

    run(test, path)


def test_a_transaction_that_cannot_be_committed_is_kept_by_nobody_and_the_next_one_is(path):
    async def test(store):
        writer, commit = store._writer, store._writer._commit
        ready = threading.Event()

        def fails():
            writer._commit = commit
            raise sqlite3.OperationalError("database or disk is full")

        blocked = writer.submit(lambda database: ready.wait(20.0))
        both = [asyncio.create_task(store.done(note(name, 1))) for name in "ab"]
        await asyncio.sleep(0)
        writer._commit = fails
        ready.set()
        told = await asyncio.gather(blocked, *both, return_exceptions=True)
        lost = [each for each in told if isinstance(each, StoreError)]
        assert lost
        assert all("disk is full; nothing was kept" in str(each) for each in lost)
        kept = await store.read(
            lambda database: database.execute("SELECT count(*) FROM meta WHERE name IN ('a', 'b')").fetchone()
        )
        assert kept == (sum(each == 1 for each in told[1:]),), "what was not committed was not acknowledged"
        assert await store.done(note("c", 1)) == 1

    run(test, path)


def test_what_follows_a_commit_is_called_in_order_and_though_the_caller_has_gone(path):
    async def test(store):
        heard, ready = [], threading.Event()
        first = asyncio.create_task(store.done(lambda database: ready.wait(20.0)))
        await asyncio.sleep(0)
        tasks = [
            asyncio.create_task(store.done(note(f"n{number}", number), lambda _, n=number: heard.append(n)))
            for number in range(300)
        ]
        await asyncio.sleep(0)
        for task in tasks[::2]:
            task.cancel()
        ready.set()
        await asyncio.gather(first, *tasks, return_exceptions=True)
        await store.done(lambda database: None)
        assert heard == list(range(300))
        assert all(task.cancelled() for task in tasks[::2])

    run(test, path)


def test_only_so_many_wait(path):
    async def main():
        connection = open_database(path)
        writer, ready = Writer(connection, waiting=4), threading.Event()
        blocked = asyncio.create_task(writer.done(lambda database: ready.wait(20.0)))
        waiting = [asyncio.create_task(writer.done(note(f"n{i}", i))) for i in range(40)]
        for _ in range(5):
            await asyncio.sleep(0)
        assert writer._jobs.qsize() <= 4, "the rest waits outside"
        ready.set()
        await asyncio.gather(blocked, *waiting)
        await writer.close()
        with pytest.raises(StoreError, match="closed"):
            await writer.done(note("late", 1))

    asyncio.run(main())
    assert rows(path, "SELECT count(*) FROM meta WHERE name LIKE 'n%'") == [(40,)]


def test_closing_writes_what_waits(path):
    async def test(store):
        store.journal = "j"
        store.saw(Served(1, 0, 1, 2**64 - 1, 0.25, 2**63, 3.5, 3.25))
        await store.close()

    async def main():
        await test(Store(path, keep_requests=10))

    asyncio.run(main())
    assert rows(path, "SELECT * FROM requests_seen") == [(1, "j", 0, 1, -1, 0.25, -(2**63), 3.5, 3.25)]
    assert [unsigned(signed(number)) for number in (0, 2**63, 2**64 - 1)] == [0, 2**63, 2**64 - 1]


def test_what_was_seen_is_there_for_work_that_comes_later_and_is_bounded(path):
    async def test(store):
        for number in range(1, 251):
            store.saw(Served(number, 0, 0, 0, 1.0, 0, 0.0, None))
            if number % 10 == 0:
                (last,) = await store.done(
                    lambda database: database.execute("SELECT max(request_id) FROM requests_seen").fetchone()
                )
                assert last == number
        (count,) = await store.read(
            lambda database: database.execute("SELECT count(*) FROM requests_seen").fetchone()
        )
        assert 100 <= count < 200

    run(test, path)


def test_the_audit_only_grows(path):
    row = "INSERT INTO audit VALUES (NULL, 'j', 1.0, 'ann', 'scaling', '{}', '{}', 'ordered', '[]', NULL)"

    async def test(store):
        await store.done(lambda database: database.execute(row).rowcount)
        for statement in ("UPDATE audit SET who = 'bob'", "DELETE FROM audit"):
            with pytest.raises(StoreError, match="only grows"):
                await store.done(lambda database, said=statement: database.execute(said).rowcount)

    run(test, path)
    assert rows(path, "SELECT who FROM audit") == [("ann",)]


def test_a_reader_cannot_write(path):
    async def test(store):
        with pytest.raises(StoreError, match="readonly"):
            await store.read(note("n", 1))

    run(test, path)
