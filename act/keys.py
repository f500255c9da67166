"""The log's keys, in one file: the one that signs, and the verifier keys of those that signed before it.

    # Keys of the log act.example.gov. Keep this file secret: mode 0600, not in the database's backup.
    PRIVATE+KEY+act.example.gov+9af3a4f5+ATb...
    act.example.gov+0be2b5d7+AXc...

The private key never leaves this file, in no log and no message. Verifier keys are public: hand them out.
"""

from __future__ import annotations

import secrets
import socket
import stat
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import make_url

from act.domain.note import SEED_BYTES, NoteError, SigningKey, VerifierKey
from act.files import PRIVATE, write_whole

NO_KEY = "none"
"""Given as the key file: this process signs nothing."""
_PRIVATE_LINE = "PRIVATE+KEY+"
_SHOWN_READERS = stat.S_IRWXG | stat.S_IRWXO


class KeyFileError(Exception):
    """The keys cannot be read or written; the message says why and what to do, and quotes no key."""


@dataclass(frozen=True, slots=True)
class Keys:
    """What a key file holds.

    Attributes:
        signing: the key that signs now. Its name is the log's.
        earlier: those that signed before it, the newest first; what they signed still verifies.
        path: the file.
    """

    signing: SigningKey
    earlier: tuple[VerifierKey, ...]
    path: Path

    @property
    def origin(self) -> str:
        """The log's name."""
        return self.signing.name

    @property
    def verifiers(self) -> tuple[VerifierKey, ...]:
        """All keys that may have signed what is there; the one that signs now first."""
        return (self.signing.verifier, *self.earlier)

    @property
    def warning(self) -> str | None:
        """What the operator should know about the file."""
        if stat.S_IMODE(self.path.stat().st_mode) & _SHOWN_READERS:
            return f"others than its owner may read the signing key {self.path}: chmod 600 {self.path}"
        return None


def default_name() -> str:
    """Return a name for a new log that no other has."""
    return f"{socket.gethostname()}/act-{secrets.token_hex(4)}"


def key_path(database_url: str, named: str | None = None) -> Path:
    """Return the key file: the one that is ``named``; else beside an SQLite database.

    That of a PostgreSQL database is in the working folder, and has the database's name: two ledgers must never sign
    with one key, for they would contradict each other.
    """
    if named is not None:
        return Path(named)
    return Path(f"{make_url(database_url).database or 'act'}.key")


def open_keys(
    database_url: str, *, named: str | None, name: str | None, on_made: Callable[[Keys], None]
) -> Keys | None:
    """Return the keys that a service signs with, made where there are none; None where it is told to sign nothing.

    Args:
        database_url: the ledger's.
        named: the key file, or `NO_KEY`; None: the usual one.
        name: the log's, for a key that is made; one that is there must have it.
        on_made: told when it was made.

    Raises:
        KeyFileError: they cannot be read or made, or are of another log.
    """
    if named == NO_KEY:
        return None
    path = key_path(database_url, named)
    if path.exists():
        keys = read_keys(path)
    else:
        keys = make_keys(path, name=name or default_name())
        on_made(keys)
    if name is not None and keys.origin != name:
        raise KeyFileError(
            f"ACT_LOG_NAME says {name!r}, and {path} is of the log {keys.origin!r}: leave the name out, or name "
            "another file"
        )
    return keys


def memory_of(keys: Keys, named: str | None = None) -> Path:
    """Return the file that keeps the last checkpoint that the keys signed: the one that is ``named``, if any."""
    return keys.path.with_name(f"{keys.path.name}.last") if named is None else Path(named)


def read_keys(path: Path) -> Keys:
    """Return the keys in a file.

    Raises:
        KeyFileError: it is not there, cannot be read, or holds something else.
    """
    lines = _lines(path)
    signing = [line for line in lines if line.startswith(_PRIVATE_LINE)]
    if len(signing) != 1:
        raise KeyFileError(
            f"{path} holds {len(signing)} signing keys, and one is needed: name the file of `act key new`"
        )
    try:
        key = SigningKey.parse(signing[0])
        return Keys(key, tuple(VerifierKey.parse(line) for line in lines if line is not signing[0]), path)
    except NoteError as error:
        raise KeyFileError(f"{path}: {error}") from None


def make_keys(path: Path, *, name: str) -> Keys:
    """Make a key file that only its owner can read; return its keys. Where one is there already, return those.

    Raises:
        KeyFileError: it cannot be written, or the name is none.
    """
    keys = Keys(_new_key(name), (), path)
    try:
        write_whole(path, _text(keys), mode=PRIVATE, replace=False)
    except FileExistsError:
        return read_keys(path)  # another process was faster
    except OSError as error:
        raise KeyFileError(
            f"cannot make the signing key {path}: {error.strerror}; give this user the folder, or name a file"
        ) from None
    return keys


def renew_keys(path: Path, *, name: str | None = None) -> Keys:
    """Put a new key in the place of the one that signs, whose verifier key is kept; return the keys.

    Args:
        path: a key file.
        name: None keeps the log's. Another name begins another log: for after one whose promise is broken.

    Raises:
        KeyFileError: there is none, or it cannot be written.
    """
    old = read_keys(path)
    keys = Keys(_new_key(name or old.origin), old.verifiers, path)
    try:
        write_whole(path, _text(keys), mode=PRIVATE)
    except OSError as error:
        raise KeyFileError(f"cannot write {path}: {error.strerror}") from None
    return keys


def read_verifiers(given: Iterable[str]) -> tuple[VerifierKey, ...]:
    """Return the verifier keys that are given as text, or as files that hold them, one a line. A key file is one, too.

    Raises:
        KeyFileError: one cannot be read.
    """
    found: dict[VerifierKey, None] = {}
    for one in given:
        path = Path(one)
        if "+" in one and not path.exists():
            try:
                found[VerifierKey.parse(one)] = None
            except NoteError as error:
                raise KeyFileError(str(error)) from None
            continue
        lines = _lines(path)
        if any(line.startswith(_PRIVATE_LINE) for line in lines):
            found.update(dict.fromkeys(read_keys(path).verifiers))
            continue
        try:
            found.update((VerifierKey.parse(line), None) for line in lines)
        except NoteError as error:
            raise KeyFileError(f"{path}: {error}") from None
    return tuple(found)


def _new_key(name: str) -> SigningKey:
    try:
        return SigningKey(name, secrets.token_bytes(SEED_BYTES))
    except NoteError as error:
        raise KeyFileError(str(error)) from None


def _lines(path: Path) -> list[str]:
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise KeyFileError(f"there is no key file {path}: make one with `act key new --file {path}`") from None
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is no text"
        raise KeyFileError(f"cannot read the key file {path}: {why}") from None
    return [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("#")]


def _text(keys: Keys) -> bytes:
    lines = [
        f"# Keys of the log {keys.origin}. Keep this file secret: mode 0600, not in the database's backup.",
        keys.signing.secret_text(),
        *map(str, keys.earlier),
    ]
    return "".join(f"{line}\n" for line in lines).encode()
