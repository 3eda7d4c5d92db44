"""What lies on the disk under a key: the keys themselves, nonces, and rows that somebody moved.

Looked at from outside, with SQLite and another implementation of the ciphers, as somebody would who has the file.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from packed import put_tokens, random_tokens, values_of

from linkedout_edge import Recommender
from linkedout_edge.storage import FILE_NAME

ciphers = pytest.importorskip("cryptography.hazmat.primitives.ciphers.aead", reason="needs the extra `encryption`")

KEY = bytes(range(32))  # not stretched: no time is spent
KEYS = pytest.mark.parametrize("key", [None, KEY], ids=["plain", "encrypted"])


def load(bundle: Path, folder: Path, key: str | bytes | None) -> Recommender:
    return Recommender.load(bundle, precision="fp32", decoder="opencv", data_dir=folder, key=key)


@contextmanager
def opened(folder: Path) -> Iterator[sqlite3.Connection]:
    """The database, as anybody can open it; what is changed is kept."""
    with closing(sqlite3.connect(folder / FILE_NAME)) as con:
        yield con
        con.commit()


def rows(folder: Path, query: str) -> list[tuple[Any, ...]]:
    with opened(folder) as con:
        return con.execute(query).fetchall()


# Keys


class Keys(NamedTuple):
    """What must become of a key and the salt 00 01 ... 0f."""

    key: str | bytes
    kdf: bytes
    records: str
    ids: str


# By OpenSSL 3.0. First `openssl kdf -keylen 32 -kdfopt n:32768 -kdfopt r:8 -kdfopt p:1 ... SCRYPT`, or `-kdfopt
# mode:EXTRACT_ONLY -kdfopt digest:SHA256 ... HKDF`; of that, twice, `-kdfopt mode:EXPAND_ONLY -kdfopt digest:SHA256
# -kdfopt info:"linkedout-edge records" ... HKDF` and the same with "linkedout-edge ids".
SALT = bytes(range(16))
KNOWN = {
    "a passphrase": Keys(
        "correct horse battery staple ü",
        b"scrypt",
        "9e0ab4a91c6b1e7ab4d5e08a3b5749be96ec786caa586987abdb7855e842c543",
        "dff96a99146fa99b36b64f17d5954dd9bbb63ac0b812b2fcc767bbc1c1e6f55f",
    ),
    "a long passphrase is one as well": Keys(
        "0123456789abcdef" * 4,
        b"scrypt",
        "ec900fc121d4b1c7395f3ee4acfca1e17a69a13be4c4472355de7219d4e6fc87",
        "fbd76824f9a0fee015868c983f679ccfa8c0c6e3d2c35d6c87776bbad88358af",
    ),
    "31 bytes are stretched": Keys(
        bytes(range(31)),
        b"scrypt",
        "bc04731e51f1c6421e81f176c9ba0e169b340c502d496085f27dc2657dae3dab",
        "fac79cde7025feb2c9b720bff22ff9967d5fb6dad3b82944db20fff1f48b1fb5",
    ),
    "32 bytes are not": Keys(
        bytes(range(32)),
        b"hkdf",
        "10b8155deb0e9acbede9e08ac6a9ec4a57ec9542c0c14db510b95152a1320bdc",
        "ccece15ba12ebb6356869c09fac56117065c06de3e4276773c25ad00391a9fd4",
    ),
}


@pytest.mark.parametrize("known", KNOWN.values(), ids=KNOWN.keys())
def test_known_keys_read_and_write_the_database(tiny_bundle: Path, tmp_path: Path, known: Keys) -> None:
    """A database of known keys opens, and what is then written can be read with them and nothing else of ours."""
    load(tiny_bundle, tmp_path, known.key).close()
    aead = ciphers.ChaCha20Poly1305(bytes.fromhex(known.records))
    check = bytes(12) + aead.encrypt(bytes(12), b"linkedout-edge key check", b"check")
    with opened(tmp_path) as con:
        assert con.execute("SELECT value FROM meta WHERE name = 'kdf'").fetchone()[0] == known.kdf
        con.executemany("UPDATE meta SET value = ? WHERE name = ?", [(SALT, "salt"), (check, "check")])
    with load(tiny_bundle, tmp_path, known.key) as rec:  # WrongKeyError if it derived another
        put_tokens(rec, tmp_path, ["a.mp4", "b.mp4"], random_tokens(2))
        rec.history.add("a.mp4")

    def key_of(id: bytes) -> bytes:
        return hashlib.blake2b(id, digest_size=16, key=bytes.fromhex(known.ids)).digest()

    def opened_record(place: bytes, key: bytes, record: bytes) -> bytes:
        return bytes(aead.decrypt(record[:12], record[12:], place + key))

    ((key, record),) = rows(tmp_path, "SELECT key, record FROM events")
    assert key == key_of(b"a.mp4")
    assert b"a.mp4" in opened_record(b"event", key, record)
    found = rows(tmp_path, "SELECT s.name, v.key, v.record FROM videos v JOIN spaces s ON s.n = v.space")
    plain = {key: opened_record(b"video" + space.encode(), key, record) for space, key, record in found}
    assert {id for id in (b"a.mp4", b"b.mp4") if id in plain[key_of(id)]} == {b"a.mp4", b"b.mp4"}
    assert random_tokens(2)[0].tobytes() in plain[key_of(b"a.mp4")]


def test_two_databases_of_one_key_have_nothing_in_common(tiny_bundle: Path, tmp_path: Path) -> None:
    seen = []
    for folder in (tmp_path / "one", tmp_path / "two"):
        with load(tiny_bundle, folder, KEY) as rec:
            put_tokens(rec, tmp_path, ["a.mp4"], random_tokens(1))
            rec.history.add("a.mp4")
        found = rows(folder, "SELECT value FROM meta WHERE name != 'kdf'")
        found += rows(folder, "SELECT key FROM events UNION ALL SELECT record FROM events")
        found += rows(folder, "SELECT record FROM videos")
        seen.append({value for (value,) in found})
    assert len(seen[0]) == len(seen[1]) == 5
    assert seen[0].isdisjoint(seen[1])


# Nonces


def test_no_two_records_are_encrypted_alike(tiny_bundle: Path, tmp_path: Path) -> None:
    """With a nonce that comes again, what two ciphertexts have in common tells what two videos have in common."""
    videos: list[bytes] = []
    tokens = np.repeat(random_tokens(1), 3, axis=0)
    with load(tiny_bundle, tmp_path, KEY) as rec:
        for _ in range(3):  # the same videos once more
            put_tokens(rec, tmp_path, ["a", "b", "c"], tokens)
            for i in "abc":
                rec.history.add(i)
            videos += [r for (r,) in rows(tmp_path, "SELECT record FROM videos")]
        events = [r for (r,) in rows(tmp_path, "SELECT record FROM events")]
    assert (len(videos), len(events)) == (9, 9)
    for kind in (videos, events):
        length = min(map(len, kind))
        content = np.array([list(r[:length]) for r in kind], np.uint8)
        equal = np.array([(content[i] == content[:i]).mean(1).max() for i in range(1, len(kind))])
        # By chance one byte in 256. Events are short: of 70 bytes, 20 in common would be odd.
        assert equal.max() < 0.3, equal


# Rows that somebody moved


def swap(con: sqlite3.Connection, table: str) -> None:
    """Give the first two rows of a table each other's record."""
    (a, first), (b, second) = con.execute(f"SELECT n, record FROM {table} ORDER BY n LIMIT 2").fetchall()
    assert first != second
    con.executemany(f"UPDATE {table} SET record = ? WHERE n = ?", [(second, a), (first, b)])


@KEYS
def test_records_under_each_others_ids_are_left_out(tiny_bundle: Path, tmp_path: Path, key: bytes | None) -> None:
    """Each record is whole in itself; only that it belongs to its id can tell."""
    tokens = random_tokens(3)
    with load(tiny_bundle, tmp_path, key) as rec:
        put_tokens(rec, tmp_path, ["a", "b", "c"], tokens)
    with opened(tmp_path) as con:
        swap(con, "videos")
    with load(tiny_bundle, tmp_path, key) as rec:
        assert rec.store.select().ids == ["c"]
        assert (values_of(rec, tmp_path, ["c"]) == tokens[2] * np.float32(0.02)).all()
        assert [f.code for f in rec.rank([], ["a"]).failed] == ["not_found"]
        put_tokens(rec, tmp_path, ["a", "b"], tokens[:2])  # and can be stored again
        assert (values_of(rec, tmp_path, ["a", "b"]) == tokens[:2] * np.float32(0.02)).all()
    with load(tiny_bundle, tmp_path, key) as rec:
        assert set(rec.store.select().ids) == {"a", "b", "c"}


@KEYS
def test_events_under_each_others_ids_are_left_out_once(tiny_bundle: Path, tmp_path: Path, key: bytes | None) -> None:
    """The database is set aside, and the new one holds nothing but whole records."""
    with load(tiny_bundle, tmp_path, key) as rec:
        put_tokens(rec, tmp_path, list("abcd"), random_tokens(4))
        for i in "abc":
            rec.history.add(i)
    with opened(tmp_path) as con:
        swap(con, "events")
        swap(con, "videos")
    for _ in range(2):
        with load(tiny_bundle, tmp_path, key) as rec:
            assert [e.id for e in rec.history] == ["c"]
            assert set(rec.store.select().ids) == {"c", "d"}
        assert [p.name for p in tmp_path.glob("*.damaged-*")] == [f"{FILE_NAME}.damaged-1"]
        assert rows(tmp_path, "SELECT (SELECT count(*) FROM events), (SELECT count(*) FROM videos)") == [(1, 2)]


@KEYS
def test_records_of_another_token_space_are_left_out(tiny_bundle: Path, tmp_path: Path, key: bytes | None) -> None:
    """Another model's tokens would be ranked as if they said something."""
    other = Path(shutil.copytree(tiny_bundle, tmp_path / "other bundle"))
    manifest = json.loads((other / "manifest.json").read_text())
    manifest["token_space"] = manifest["token_space"][::-1]
    (other / "manifest.json").write_text(json.dumps(manifest))
    with load(tiny_bundle, tmp_path / "d", key) as rec:
        put_tokens(rec, tmp_path, ["a", "b"], random_tokens(2))
    with opened(tmp_path / "d") as con:
        con.execute("UPDATE spaces SET name = ?", (manifest["token_space"],))
    with load(other, tmp_path / "d", key) as rec:
        assert rec.store.select().ids == []
        put_tokens(rec, tmp_path, ["a"], random_tokens(1))
        assert rec.store.select().ids == ["a"]
