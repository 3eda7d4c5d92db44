"""The store on a database: what is kept, followed, bounded and refused."""

from __future__ import annotations

import os
import sqlite3
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from stored import CONFIG, Opened, inner, new_store, open_stored, put, raw_bytes, stored, value

from linkedout_edge import errors
from linkedout_edge.storage import FILE_NAME, Database
from linkedout_edge.store import Fingerprint

KEYS = [None, "a passphrase", bytes(range(32))]


@pytest.mark.parametrize("key", KEYS, ids=["plain", "passphrase", "random key"])
def test_what_was_put_is_there_when_opened_again(tmp_path: Path, key: str | bytes | None) -> None:
    names = ["a.mp4", "b/ü 🎬.mp4", "not utf-8 \udcff.mp4", "nul\0inside"]
    with stored(tmp_path, key) as s:
        for i in names:
            put(s.store, i, title=f"title of {i}")
        put(s.store, "a.mp4", 99)
        s.store.remove(names[1])
    with stored(tmp_path, key) as s:
        assert list(s.store) == [names[0], *names[2:]]
        assert value(s.store, "a.mp4") == 99
        assert s.tokens.fingerprint("a.mp4") == Fingerprint("content 99")
        known = s.tokens.fingerprint(names[2])
        assert known is not None
        assert known.title == f"title of {names[2]}"
        assert s.store.stats().disk_bytes > 0
        assert s.store.stats().unsaved == 0


def test_another_models_tokens_are_never_read(tmp_path: Path) -> None:
    with stored(tmp_path, space="one") as s:
        put(s.store, "a", 1)
        put(s.store, "b", 2)
    with stored(tmp_path, space="two") as s:
        assert len(s.store) == 0
        assert "a" not in s.store
        put(s.store, "a", 50)
    with stored(tmp_path, space="one") as s:
        assert (value(s.store, "a"), value(s.store, "b")) == (1, 2)
        s.store.remove("a")  # removing is for all models
    with stored(tmp_path, space="two") as s:
        assert list(s.store) == []


def test_another_models_tokens_leave_first(tmp_path: Path) -> None:
    with stored(tmp_path, space="one", max_videos=10) as s:
        for i in range(10):
            put(s.store, f"old{i}")
    with stored(tmp_path, space="two", max_videos=10) as s:
        for i in range(7):
            put(s.store, f"new{i}")
    with stored(tmp_path, space="one", max_videos=10) as s:
        assert list(s.store) == ["old7", "old8", "old9"]


def test_eviction_reaches_the_disk_and_spares_the_history(tmp_path: Path) -> None:
    with stored(tmp_path, max_videos=5) as s:
        s.history.add("watched")
        for i in range(20):
            put(s.store, f"v{i}")
        assert len(s.store) == 5
        kept = set(s.store)
    assert {"watched", "v19"} <= kept
    with stored(tmp_path, max_videos=5) as s:
        assert set(s.store) == kept


def test_the_order_of_use_survives(tmp_path: Path) -> None:
    with stored(tmp_path, max_videos=3) as s:
        for i in "abc":
            put(s.store, i)
        s.tokens.touch(s.tokens.find(["a"]))
    with stored(tmp_path, max_videos=3) as s:
        put(s.store, "d")
        assert set(s.store) == {"a", "c", "d"}


def test_processes_follow_each_other(tmp_path: Path) -> None:
    with stored(tmp_path) as one, stored(tmp_path) as two:
        put(one.store, "a", 1)
        put(one.store, "b", 2)
        handle = one.store.select()
        two.tokens.refresh()
        assert (value(two.store, "a"), value(two.store, "b")) == (1, 2)
        put(two.store, "a", 3)
        two.store.remove("b")
        put(two.store, "c", 4)
        one.tokens.refresh()
        assert list(one.store) == ["a", "c"]
        assert [value(one.store, i) for i in "ac"] == [3, 4]
        assert (handle._rows() < 0).tolist() == [False, True]
        known = one.tokens.fingerprint("a")
        assert known is not None
        assert known.content == "content 3"


def test_a_process_that_slept_long_reads_everything_again(tmp_path: Path) -> None:
    with stored(tmp_path) as one, stored(tmp_path) as two:
        put(one.store, "old", 1)
        two.tokens.refresh()
        for i in range(30):
            put(one.store, f"v{i}")
        one.store.remove("old")
        with one.database.transaction() as con:  # as if the list of changes had been cut
            con.execute("DELETE FROM changes WHERE seq < 25")
        two.tokens.refresh()
        assert set(two.store) == set(one.store)
        assert all(value(two.store, i) == value(one.store, i) for i in one.store)


def test_what_was_replaced_in_private_is_followed_too(tmp_path: Path) -> None:
    with stored(tmp_path) as a, stored(tmp_path) as b:
        put(a.store, "x")
        assert b.store.select().ids == ["x"]
        with b.tokens.private():
            put(b.store, "x", 5)
            a.store.remove("x")
            assert b.store.select().ids == []


def test_what_was_stored_before_stays_though_it_was_replaced_in_private(tmp_path: Path) -> None:
    with stored(tmp_path) as s:
        put(s.store, "x", 1)
        with s.tokens.private():
            put(s.store, "x", 5)
            put(s.store, "x", 6)
            put(s.store, "only here")
            assert value(s.store, "x") == 6
        assert s.store.select().ids == ["x"]
        assert value(s.store, "x") == 1
        assert s.tokens.fingerprint("x") == Fingerprint("content 1")
        assert s.store.stats().unsaved == 0
    with stored(tmp_path) as s:
        assert value(s.store, "x") == 1


def test_what_was_not_yet_written_when_it_was_replaced_in_private_is_written_later(tmp_path: Path) -> None:
    with stored(tmp_path) as s, stored(tmp_path) as other:
        with s.tokens.batch():
            put(s.store, "x", 1)
            with s.tokens.private():
                put(s.store, "x", 5)
                s.tokens.flush()
                assert other.store.select().ids == []
        other.tokens.refresh()
        assert (value(s.store, "x"), value(other.store, "x")) == (1, 1)


def test_what_was_replaced_in_private_is_written_as_it_was_when_closed_there(tmp_path: Path) -> None:
    s = open_stored(tmp_path)
    with s.tokens.batch():
        put(s.store, "x", 1)
        with s.tokens.private():
            put(s.store, "x", 5)
            s.close()
    with stored(tmp_path) as s:
        assert value(s.store, "x") == 1


@pytest.mark.parametrize("rebuilt", [False, True])
def test_what_was_replaced_in_private_is_itself_again_when_all_is_read_again(tmp_path: Path, rebuilt: bool) -> None:
    with stored(tmp_path) as s:
        put(s.store, "x", 1)
        with s.tokens.private():
            put(s.store, "x", 5)
            put(s.store, "only here")
            s.tokens._reload(rebuilt=rebuilt)  # type: ignore[attr-defined]
            s.tokens.flush()
            assert sorted(s.store) == ["only here", "x"]
        assert value(s.store, "x") == 1
    with stored(tmp_path) as s:
        assert (list(s.store), value(s.store, "x")) == (["x"], 1)


def test_what_was_replaced_in_private_and_by_another_process_is_the_others(tmp_path: Path) -> None:
    with stored(tmp_path) as a, stored(tmp_path) as b:
        put(a.store, "x", 1)
        b.tokens.refresh()
        with b.tokens.private():
            put(b.store, "x", 5)
            put(a.store, "x", 7)
            b.tokens.refresh()
        assert value(b.store, "x") == 7


def test_what_leaves_in_private_does_not_come_back() -> None:
    store = new_store(max_videos=2)
    for i in "ab":
        put(store, i, 1)
    with inner(store).private():
        for i in "ab":
            put(store, i, 2)
        store.remove("a")
        put(store, "c")
        put(store, "d")  # b is evicted: it was used least recently
    assert list(store) == []


@pytest.mark.parametrize("slept_long", [False, True])
def test_what_could_not_be_read_of_others_is_read_by_the_next_call(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, slept_long: bool
) -> None:
    with stored(tmp_path) as a, stored(tmp_path) as b:
        put(a.store, "x")
        put(a.store, "y")
        assert b.store.select().ids == ["x", "y"]
        with b.tokens.private():
            put(b.store, "only here")

            def fail(*_: object) -> None:
                raise errors.StorageError("it cannot be read")

            with monkeypatch.context() as m:
                table = b.tokens._table  # type: ignore[attr-defined]
                m.setattr(table, "load" if slept_long else "fetch", fail)
                if slept_long:
                    m.setattr(table, "changes", lambda con, since: None)
                a.store.remove("x")
                put(a.store, "z")
                with pytest.raises(errors.StorageError, match="cannot be read"):
                    b.store.select()
            assert sorted(b.store.select().ids) == ["only here", "y", "z"]


def test_a_pinned_video_of_another_process_is_not_evicted(tmp_path: Path) -> None:
    with stored(tmp_path, max_videos=3) as one, stored(tmp_path, max_videos=3) as two:
        for i in "abc":
            put(one.store, i)
        two.tokens.refresh()
        two.history.add("a")
        # `one` has not heard of that, and lets the least recently used leave.
        put(one.store, "d")
        assert "a" in one.store
    with stored(tmp_path) as s:
        assert "a" in s.store


def test_an_event_brings_its_tokens_back_if_another_process_evicted_them(tmp_path: Path) -> None:
    with stored(tmp_path) as one, stored(tmp_path) as two:
        put(one.store, "a", 7)
        two.tokens.refresh()
        two.store.remove("a")
        one.history.add("a")  # `one` still holds them
    with stored(tmp_path) as s:
        assert value(s.store, "a") == 7


def test_threads_share_one_store(tmp_path: Path) -> None:
    problems: list[BaseException] = []
    with stored(tmp_path, max_videos=30) as s, stored(tmp_path, max_videos=30) as other:

        def work(opened: Opened, seed: int) -> None:
            try:
                rng = np.random.default_rng(seed)
                for n in rng.integers(0, 50, 60):
                    if n % 4:
                        put(opened.store, f"v{n}", int(n))
                    elif n % 8:
                        opened.store.remove(f"v{n - 1}")
                    else:
                        opened.tokens.refresh()
                        with opened.tokens.lock:
                            known = opened.tokens.find(list(opened.store))
                            opened.tokens.touch(known)
            except BaseException as e:
                problems.append(e)

        threads = [threading.Thread(target=work, args=(o, n)) for n, o in enumerate([s, s, other, other])]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        assert problems == []
        put(s.store, "last", 5)
        other.tokens.refresh()
        s.tokens.refresh()
        assert set(s.store) == set(other.store)
        assert all(value(s.store, i) == value(other.store, i) == int(i[1:]) for i in s.store if i != "last")


def test_a_batch_is_written_when_it_ends(tmp_path: Path) -> None:
    with stored(tmp_path) as s:
        with s.tokens.batch():
            for i in range(10):
                put(s.store, f"v{i}")
            assert s.store.stats().unsaved == 10
        assert s.store.stats().unsaved == 0
        log = tmp_path / f"{FILE_NAME}-wal"
        assert log.stat().st_size > 0
        assert s.store.stats().disk_bytes == (tmp_path / FILE_NAME).stat().st_size + log.stat().st_size
        with sqlite3.connect(tmp_path / FILE_NAME) as con:
            assert con.execute("SELECT count(*) FROM videos").fetchone()[0] == 10
        con.close()


def test_what_is_replaced_while_it_is_being_written_is_written_again(tmp_path: Path) -> None:
    with stored(tmp_path) as s:
        with s.tokens.batch():
            put(s.store, "x", 1)
            with s.tokens.writing():  # 1 is in the transaction by now
                put(s.store, "x", 2)
        assert s.store.stats().unsaved == 0
        with stored(tmp_path) as other:
            assert value(other.store, "x") == 2


def test_a_ranking_that_goes_on_hides_no_error_of_another_thread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with stored(tmp_path) as s:
        said: list[errors.StorageError] = []

        def fail(*_: object) -> None:
            raise errors.StorageFullError("there is no room")

        def take_over() -> None:
            try:
                with s.tokens.batch():
                    put(s.store, "of a pack")
            except errors.StorageError as e:
                said.append(e)

        with s.tokens.batch(durable=False), monkeypatch.context() as m:
            m.setattr(s.tokens._table, "write", fail)  # type: ignore[attr-defined]
            put(s.store, "of the ranking")
            thread = threading.Thread(target=take_over)
            thread.start()
            thread.join()
        assert said
        assert s.store.stats().unsaved == 0  # written when there was room again


def test_files_are_for_their_owner_only(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "data"
    with stored(folder) as s:
        put(s.store, "a")
        assert folder.stat().st_mode & 0o077 == 0
        assert all(p.stat().st_mode & 0o077 == 0 for p in folder.iterdir())
    assert [p.name for p in folder.iterdir()] == [FILE_NAME]


def test_a_home_folder_may_be_a_tilde(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HOME", "USERPROFILE"):
        monkeypatch.setenv(name, str(tmp_path))
    monkeypatch.chdir(tmp_path)
    with stored("~/data") as s:
        put(s.store, "a")
    assert (tmp_path / "data" / FILE_NAME).is_file()


def test_a_wrong_missing_or_needless_key(tmp_path: Path) -> None:
    with stored(tmp_path / "e", "right") as s:
        put(s.store, "a")
    before = (tmp_path / "e" / FILE_NAME).read_bytes()
    for key, said in [("wrong", "does not match"), (None, "is encrypted: pass"), (b"x" * 40, "does not match")]:
        with pytest.raises(errors.WrongKeyError, match=said):
            Database(tmp_path / "e", key)
    assert (tmp_path / "e" / FILE_NAME).read_bytes() == before
    with stored(tmp_path / "e", b"right") as s:  # the same bytes
        assert "a" in s.store
    with stored(tmp_path / "p") as s:
        put(s.store, "a")
    with pytest.raises(errors.WrongKeyError, match="is not encrypted"):
        Database(tmp_path / "p", "k")
    with pytest.raises(errors.WrongKeyError, match="must not be empty"):
        Database(tmp_path / "n", "")


def test_nothing_readable_lies_in_an_encrypted_folder(tmp_path: Path) -> None:
    with stored(tmp_path, "k") as s:
        put(s.store, "secret-id.mp4", 77, title="secret-title")
        s.history.add("secret-path.mp4")
        s.tokens.flush()
        raw = raw_bytes(tmp_path)
        assert len(raw) > 10_000
        for text in (b"secret", b"content 77", bytes([77] * CONFIG.token_width)):
            assert text not in raw
    assert b"secret" not in raw_bytes(tmp_path)
    with stored(tmp_path / "plain") as s:  # the same test finds them where they are
        put(s.store, "secret-id.mp4", 77, title="secret-title")
    assert b"secret-title" in raw_bytes(tmp_path / "plain")


def test_without_the_library_a_key_names_the_line_that_installs_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "cryptography.hazmat.primitives.ciphers.aead", None)
    with pytest.raises(errors.MissingDependencyError, match=r"pip install '?cryptography"):
        Database(tmp_path, "k")


def test_other_peoples_and_newer_databases_are_left_alone(tmp_path: Path) -> None:
    path = tmp_path / FILE_NAME
    con = sqlite3.connect(path)
    con.execute("CREATE TABLE theirs (x)")
    con.close()
    with pytest.raises(errors.StorageVersionError, match="another program's"):
        Database(tmp_path)
    path.unlink()
    Database(tmp_path).close()
    con = sqlite3.connect(path)
    con.execute("PRAGMA user_version=99")
    con.close()
    with pytest.raises(errors.StorageVersionError, match="format 99"):
        Database(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == [FILE_NAME]


def test_mistakes(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(errors.ArgumentError, match="is a file"):
        Database(tmp_path / "file")
    with pytest.raises(errors.StorageReadOnlyError, match="cannot be created"):
        Database("/proc/nowhere/data")
    database = Database(tmp_path / "d")
    database.close()
    database.close()
    with pytest.raises(errors.ClosedError):
        new_store(database=database)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_process_is_told_to_load_again(tmp_path: Path) -> None:
    with stored(tmp_path) as s:
        put(s.store, "a")
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                put(s.store, "b")
            except errors.ForkedError:
                code = 0
            os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        put(s.store, "c")
    with stored(tmp_path) as s:
        assert list(s.store) == ["a", "c"]


def test_a_removed_folder_is_an_error_and_not_a_silent_loss(tmp_path: Path) -> None:
    with stored(tmp_path) as s:
        put(s.store, "a")
        (tmp_path / FILE_NAME).unlink()
        with pytest.raises(errors.StorageDamagedError, match="removed or replaced"):
            put(s.store, "b")


def test_incognito_leaves_nothing_in_the_store(tmp_path: Path) -> None:
    with stored(tmp_path) as s:
        put(s.store, "before")
        with s.tokens.private():
            put(s.store, "hidden")
            assert "hidden" in s.store
            assert b"hidden" not in raw_bytes(tmp_path)
        assert list(s.store) == ["before"]
    assert b"hidden" not in raw_bytes(tmp_path)
    memory = new_store()
    with inner(memory).private():
        put(memory, "x")
    assert len(memory) == 0


def test_open_stored_closes(tmp_path: Path) -> None:
    s = open_stored(tmp_path)
    s.close()
    with pytest.raises(errors.ClosedError):
        s.store.select()


def test_what_is_put_again_after_its_eviction_stays_in_the_database(tmp_path: Path) -> None:
    with stored(tmp_path, max_videos=2) as s:
        put(s.store, "a", 1)
        with s.tokens.batch():
            put(s.store, "b", 2)
            put(s.store, "c", 3)  # "a" leaves
            put(s.store, "a", 4)  # and comes back before that was written down
    with stored(tmp_path) as s:
        assert value(s.store, "a") == 4
