"""Signed notes (C2SP signed-note): a text, and below it a line for each signature.

Keys are text, too: a verifier key ``<name>+<key id>+<base64>`` is public; a signing key ``PRIVATE+KEY+...`` is what a
key file holds (the form of Go's sumdb). Two types of signature are known: the log's own over the text, and a
witness's, which also says when (C2SP tlog-cosignature). Others are ignored, as those of unknown keys are.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Self

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from act.domain.encoding import read_base64, write_base64

ED25519 = 1
"""The signature type of a log."""
COSIGNATURE = 4
"""The signature type of a witness: Ed25519 with a time in it."""

SEED_BYTES = 32
MAX_SIGNATURES = 100
MAX_NOTE_BYTES = 1_000_000
"""A hundred signatures of any type that C2SP knows fit in."""

_PRIVATE = "PRIVATE+KEY+"
_KEY_BYTES = 32
_ID_BYTES = 4
_SIGNATURE_BYTES = 64
_TIME_BYTES = 8
_LINE = "\N{EM DASH} "


class NoteError(ValueError):
    """The text is no signed note, or no key."""


class UnverifiedNoteError(NoteError):
    """The note is well formed, and none of its signatures is by a key that is known."""


class InvalidSignatureError(NoteError):
    """A signature that claims to be by a known key is not."""


@dataclass(frozen=True, slots=True)
class Signature:
    """One signature line.

    Attributes:
        name: of the key.
        key_id: its 4 bytes; name and id together say which key.
        value: the signature's bytes; their form is that of the key's type.
    """

    name: str
    key_id: bytes
    value: bytes

    @property
    def line(self) -> str:
        """The line as it stands in a note, with its end."""
        return f"{_LINE}{self.name} {write_base64(self.key_id + self.value)}\n"

    @property
    def time_sec(self) -> int:
        """When a witness signed, seconds since the epoch. Only for `COSIGNATURE`, and true once verified."""
        return int.from_bytes(self.value[:_TIME_BYTES])


@dataclass(frozen=True, slots=True)
class Note:
    """A text that ends in a newline, and its signatures, none of which is verified yet."""

    text: str
    signatures: tuple[Signature, ...] = ()

    def encoded(self) -> bytes:
        """Return the note's bytes."""
        return f"{self.text}\n{''.join(one.line for one in self.signatures)}".encode()


@dataclass(frozen=True, slots=True)
class VerifierKey:
    """A public key.

    Attributes:
        name: who signs with it; by habit a URL without its scheme.
        public: 32 bytes of Ed25519.
        kind: `ED25519` or `COSIGNATURE`.
    """

    name: str
    public: bytes
    kind: int = ED25519

    def __post_init__(self) -> None:
        if not _is_name(self.name):
            raise NoteError(f"{self.name[:80]!r} is no name of a key: no spaces, no '+', not empty")
        if len(self.public) != _KEY_BYTES or self.kind not in (ED25519, COSIGNATURE):
            raise NoteError(f"the key of {self.name!r} is no Ed25519 key of a log or a witness")

    @classmethod
    def parse(cls, text: str) -> Self:
        """Return the key that ``<name>+<key id>+<base64>`` stands for.

        Raises:
            NoteError: it is no such text, or its id is that of another key.
        """
        name, key_id, value = _key_parts(text, what="verifier key")
        key = cls(name, value[1:], value[0])
        if key.key_id.hex() != key_id:
            raise NoteError(f"the verifier key of {name!r} is damaged: its id should read {key.key_id.hex()}")
        return key

    def __str__(self) -> str:
        return f"{self.name}+{self.key_id.hex()}+{write_base64(bytes([self.kind]) + self.public)}"

    @property
    def key_id(self) -> bytes:
        """The 4 bytes that stand before each of its signatures."""
        return _key_id(self.name, self.kind, self.public)

    def made(self, signature: Signature) -> bool:
        """Tell whether the signature says that it is by this key."""
        return signature.name == self.name and signature.key_id == self.key_id

    def verify(self, text: str, signature: Signature) -> None:
        """Check a signature that says that it is by this key.

        Raises:
            InvalidSignatureError: it is not, or the text is another one.
        """
        message, value = text.encode(), signature.value
        if self.kind == COSIGNATURE:
            message, value = _cosigned(text, signature.time_sec), value[_TIME_BYTES:]
        try:
            Ed25519PublicKey.from_public_bytes(self.public).verify(value, message)
        except (InvalidSignature, ValueError):
            raise InvalidSignatureError(
                f"the signature of {self.name} (key {self.key_id.hex()}) is not valid: the text was altered, or "
                "somebody else signed it"
            ) from None


@dataclass(frozen=True, slots=True)
class SigningKey:
    """A private key. Its text form is a secret; its ``repr`` is not.

    Attributes:
        name: who signs with it.
        seed: 32 random bytes.
        kind: `ED25519` or `COSIGNATURE`.
    """

    name: str
    seed: bytes = field(repr=False)
    kind: int = ED25519

    def __post_init__(self) -> None:
        if len(self.seed) != SEED_BYTES:
            raise NoteError(f"the seed of an Ed25519 key has {SEED_BYTES} bytes")
        _ = self.verifier  # checks the name and the kind

    @classmethod
    def parse(cls, text: str) -> Self:
        """Return the key that ``PRIVATE+KEY+<name>+<key id>+<base64>`` stands for.

        Raises:
            NoteError: it is no such text, or its id is that of another key. The message does not quote it.
        """
        if not text.startswith(_PRIVATE):
            raise NoteError(f"this is no signing key: one begins with {_PRIVATE}")
        name, key_id, value = _key_parts(text.removeprefix(_PRIVATE), what="signing key")
        key = cls(name, value[1:], value[0])
        if key.verifier.key_id.hex() != key_id:
            raise NoteError(f"the signing key of {name!r} is damaged: its id is that of another key")
        return key

    def secret_text(self) -> str:
        """Return what a key file holds. It must never reach a log."""
        value = write_base64(bytes([self.kind]) + self.seed)
        return f"{_PRIVATE}{self.name}+{self.verifier.key_id.hex()}+{value}"

    @property
    def verifier(self) -> VerifierKey:
        """The public key that goes with it."""
        private = Ed25519PrivateKey.from_private_bytes(self.seed)
        return VerifierKey(self.name, private.public_key().public_bytes_raw(), self.kind)

    def sign(self, text: str, *, time_sec: int = 0) -> Signature:
        """Return this key's signature of the text; ``time_sec`` (since the epoch) only matters to a witness's key."""
        private = Ed25519PrivateKey.from_private_bytes(self.seed)
        if self.kind == COSIGNATURE:
            value = time_sec.to_bytes(_TIME_BYTES) + private.sign(_cosigned(text, time_sec))
        else:
            value = private.sign(text.encode())
        return Signature(self.name, self.verifier.key_id, value)


def read_note(data: bytes) -> Note:
    """Return the note that the bytes are. Its text must not be used before `verify_note` or the like.

    Raises:
        NoteError: they are none, or too large.
    """
    if len(data) > MAX_NOTE_BYTES:
        raise NoteError(f"a note has {MAX_NOTE_BYTES:,} bytes at most; this one has {len(data):,}")
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        raise NoteError(f"the note is no UTF-8: byte {error.start} cannot be read") from None
    if any(char < " " and char != "\n" for char in text):
        raise NoteError("the note holds control characters")
    body, separator, block = text.rpartition("\n\n")
    if not separator or not block.endswith("\n"):
        raise NoteError("this is no signed note: signature lines must follow an empty line, each with its end")
    lines = block[:-1].split("\n")
    if len(lines) > MAX_SIGNATURES:
        raise NoteError(f"a note has {MAX_SIGNATURES} signatures at most; this one has {len(lines)}")
    return Note(f"{body}\n", tuple(_read_line(line) for line in lines))


def verify_note(note: Note, keys: Iterable[VerifierKey]) -> tuple[Signature, ...]:
    """Return the signatures by the keys, each once, in the note's order. The others are ignored.

    Raises:
        InvalidSignatureError: a signature that says that it is by one of the keys is not: the note is worth nothing.
        UnverifiedNoteError: there is no signature by any of the keys.
        NoteError: two of the keys share name and id: which one should have signed is unknowable.
    """
    known: dict[tuple[str, bytes], VerifierKey] = {}
    for key in keys:
        if known.setdefault((key.name, key.key_id), key) != key:
            raise NoteError(f"two keys are named {key.name!r} with the id {key.key_id.hex()}: give only one of them")
    verified: dict[Signature, None] = {}
    for signature in note.signatures:
        signer = known.get((signature.name, signature.key_id))
        if signer is not None:
            signer.verify(note.text, signature)
            verified[signature] = None
    if not verified:
        names = ", ".join(f"{name} ({key_id.hex()})" for name, key_id in known) or "no key"
        raise UnverifiedNoteError(f"the note has no signature by a key that is trusted here: {names}")
    return tuple(verified)


def sign_note(text: str, keys: Sequence[SigningKey], *, time_sec: int = 0) -> Note:
    """Return the text as a note that the keys have signed, in their order.

    Raises:
        NoteError: the text does not end in a newline or holds control characters, or there is no key.
    """
    note = Note(text, tuple(key.sign(text, time_sec=time_sec) for key in keys))
    if read_note(note.encoded()) != note:
        raise NoteError("the text cannot be signed as a note: it must end in a newline")
    return note


def _read_line(line: str) -> Signature:
    name, space, value = line.removeprefix(_LINE).partition(" ")
    if not line.startswith(_LINE) or not space or not _is_name(name):
        raise NoteError(f"{line[:80]!r} is no signature line: '{_LINE}<name> <base64>'")
    try:
        decoded = read_base64(value)
    except ValueError as error:
        raise NoteError(f"the signature of {name}: {error}") from None
    if len(decoded) <= _ID_BYTES:
        raise NoteError(f"the signature of {name} is too short")
    return Signature(name, decoded[:_ID_BYTES], decoded[_ID_BYTES:])


def _key_parts(text: str, *, what: str) -> tuple[str, str, bytes]:
    """Return name, id and value of a key's text; the value has its type and at least one byte more."""
    try:
        name, key_id, encoded = text.split("+", 2)
        value = read_base64(encoded)
    except ValueError:  # not with its cause: that quotes the text, which may be a secret
        raise NoteError(f"this is no {what}: one reads <name>+<key id>+<base64>") from None
    if len(value) != 1 + _KEY_BYTES:
        raise NoteError(f"this {what} holds {len(value)} bytes instead of {1 + _KEY_BYTES}")
    return name, key_id, value


def _key_id(name: str, kind: int, public: bytes) -> bytes:
    return sha256(name.encode() + b"\n" + bytes([kind]) + public).digest()[:_ID_BYTES]


def _is_name(name: str) -> bool:
    return bool(name) and "+" not in name and not any(char.isspace() or char < " " for char in name)


def _cosigned(text: str, time_sec: int) -> bytes:
    """Return what a witness signs: that it saw the text at this time."""
    return f"cosignature/v1\ntime {time_sec}\n{text}".encode()
