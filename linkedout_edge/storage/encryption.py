"""Protection of records on disk: a checksum without a key, authenticated encryption with one.

Encrypted records are ChaCha20-Poly1305 (constant time on processors without AES instructions too) with random 96-bit
nonces. Ids are looked up by a keyed hash, so that the file holds no id, title or path in the clear. The key comes from
a passphrase by scrypt, or, where at least 32 bytes are given, by HKDF; the salt lies in the database.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import zlib
from typing import Any, Protocol

from linkedout_edge import install
from linkedout_edge.errors import MissingDependencyError, StorageError, WrongKeyError

_SCRYPT = {"n": 2**15, "r": 8, "p": 1}  # 32 MiB and about 0.1 s
_SCRYPT_MEMORY = 64 * 2**20
_STRONG_KEY = 32  # bytes: so many cannot be guessed, so stretching them gains nothing
_NONCE = 12
_CHECK = b"linkedout-edge key check"


class DamagedRecordError(Exception):
    """A record's bytes are not what was written. Handled inside the package."""


class Codec(Protocol):
    """Converts records to the bytes on disk, and back."""

    encrypted: bool

    def key_of(self, id: str) -> bytes:
        """The 16 bytes by which an id is looked up."""

    def encrypt(self, data: bytes, associated_data: bytes) -> bytes:
        """The bytes to write. `associated_data` (table and key) is authenticated with them: rows cannot be swapped."""

    def decrypt(self, data: bytes, associated_data: bytes) -> bytes:
        """The record.

        Raises:
            DamagedRecordError: It was changed, or belongs to another row.
        """


def id_bytes(id: str) -> bytes:
    """UTF-8; file names that are not UTF-8 survive as well."""
    return id.encode("utf-8", "surrogatepass")


class Plain:
    """Unencrypted records, with a CRC-32 to detect damage."""

    encrypted = False

    def key_of(self, id: str) -> bytes:
        """Hash of the id."""
        return hashlib.blake2b(id_bytes(id), digest_size=16).digest()

    def encrypt(self, data: bytes, associated_data: bytes) -> bytes:
        """Data as they are, then the checksum."""
        return data + zlib.crc32(data, zlib.crc32(associated_data)).to_bytes(4, "little")

    def decrypt(self, data: bytes, associated_data: bytes) -> bytes:
        """The data, if the checksum matches."""
        body = data[:-4]
        if zlib.crc32(body, zlib.crc32(associated_data)).to_bytes(4, "little") != data[-4:]:
            raise DamagedRecordError
        return body


class Encrypted:
    """Records under ChaCha20-Poly1305.

    Args:
        master: 32 bytes, from `derive`.

    Raises:
        MissingDependencyError: The `cryptography` library is not installed.
    """

    encrypted = True

    def __init__(self, master: bytes) -> None:
        self._aead = _aead(_expand(master, b"records"))
        self._mac = _expand(master, b"ids")

    def key_of(self, id: str) -> bytes:
        """Keyed hash of the id."""
        return hashlib.blake2b(id_bytes(id), digest_size=16, key=self._mac).digest()

    def encrypt(self, data: bytes, associated_data: bytes) -> bytes:
        """Nonce, ciphertext, tag."""
        nonce = os.urandom(_NONCE)
        return nonce + bytes(self._aead.encrypt(nonce, data, associated_data))

    def decrypt(self, data: bytes, associated_data: bytes) -> bytes:
        """Decrypt, into memory only."""
        from cryptography.exceptions import InvalidTag

        try:
            return bytes(self._aead.decrypt(data[:_NONCE], data[_NONCE:], associated_data))
        except (InvalidTag, ValueError):
            raise DamagedRecordError from None


def new_secrets(key: str | bytes) -> tuple[Codec, dict[str, bytes]]:
    """A codec for a new database, and what the database must store to derive the same key again."""
    secret = _secret(key)
    meta = {
        "kdf": b"hkdf" if len(secret) >= _STRONG_KEY and isinstance(key, bytes) else b"scrypt",
        "salt": os.urandom(16),
    }
    codec = Encrypted(derive(secret, meta["kdf"], meta["salt"]))
    meta["check"] = codec.encrypt(_CHECK, b"check")
    return codec, meta


def codec_for(key: str | bytes | None, meta: dict[str, bytes]) -> Codec:
    """The codec of an existing database.

    Args:
        key: As the app gave it.
        meta: ``kdf``, ``salt`` and ``check`` of the database; empty if it is not encrypted.

    Raises:
        WrongKeyError: The key is wrong, missing, or given for a database that is not encrypted.
    """
    if "check" not in meta:
        if key is not None:
            raise WrongKeyError(
                "the data folder is not encrypted, so no key can open it: leave the key out, or use an empty folder "
                "to start an encrypted one"
            )
        return Plain()
    if key is None:
        raise WrongKeyError(
            "the data folder is encrypted: pass the key that it was written with (key= in Python, --key-file or "
            "LINKEDOUT_KEY for the command)"
        )
    codec = Encrypted(derive(_secret(key), meta.get("kdf", b""), meta.get("salt", b"")))
    try:
        codec.decrypt(meta["check"], b"check")
    except DamagedRecordError:
        raise WrongKeyError(
            "the key does not match data_dir: pass the key= that it was written with, or use another data_dir"
        ) from None
    return codec


def derive(secret: bytes, kdf: bytes, salt: bytes) -> bytes:
    """The 32-byte master key.

    Raises:
        StorageError: The database uses an unknown key derivation.
    """
    if kdf == b"hkdf":
        return hmac.new(salt, secret, hashlib.sha256).digest()  # HKDF-Extract; `_expand` is the rest of it
    if kdf == b"scrypt":
        return hashlib.scrypt(secret, salt=salt, maxmem=_SCRYPT_MEMORY, dklen=32, **_SCRYPT)
    raise StorageError(f"data_dir derives its key by {kdf!r}, which this version does not know: update linkedout-edge")


def _secret(key: str | bytes) -> bytes:
    secret = key.encode("utf-8", "surrogatepass") if isinstance(key, str) else bytes(key)
    if not secret:
        raise WrongKeyError(
            "key must not be empty: pass a passphrase, or 32 random bytes from the platform's key store"
        )
    return secret


def _expand(master: bytes, purpose: bytes) -> bytes:
    """HKDF-Expand (RFC 5869), one block: 32 bytes for one purpose."""
    return hmac.new(master, b"linkedout-edge " + purpose + b"\x01", hashlib.sha256).digest()


def _aead(key: bytes) -> Any:
    try:
        from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
    except ImportError:
        raise MissingDependencyError(
            f"key= needs the cryptography library: {install.library('cryptography')}"
        ) from None
    return ChaCha20Poly1305(key)
