"""Signed notes: what others have signed is read, what ACT signs they would read, and what is altered is refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from act.domain.encoding import read_base64
from act.domain.note import (
    COSIGNATURE,
    MAX_NOTE_BYTES,
    MAX_SIGNATURES,
    InvalidSignatureError,
    Note,
    NoteError,
    Signature,
    SigningKey,
    UnverifiedNoteError,
    VerifierKey,
    read_note,
    sign_note,
    verify_note,
)
from tests.act.trees import alterations

# c2sp.org/signed-note, "Example"
C2SP_KEY = VerifierKey.parse("example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k")
C2SP_NOTE = """This is an example message.

— example.com/foo Uw2QOkn8srV1yJGh2VYRlL1Tnagv1YEq6TfXppzi2ONncAlTgK7Ztg1ERYNZXsYjOBH3mFXmRKuwHjG1Yu72IneyaQM=
"""

# golang.org/x/mod/sumdb/note, note_test.go
PETER_SECRET = "PRIVATE+KEY+PeterNeumann+c74f20a3+AYEKFALVFGyNhPJEMzD1QIDr+Y7hfZx09iUvxdXHKDFz"
PETER = VerifierKey.parse("PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW")
ENOCH = VerifierKey.parse("EnochRoot+af0cfe78+ATtqJ7zOtqQtYqOo0CpvDXNlMhV3HeJDpjrASKGLWdop")
TEXT = """If you think cryptography is the answer to your problem,
then you don't know what your problem is.
"""
PETER_LINE = (
    "— PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n"
)
ENOCH_LINE = (
    "— EnochRoot rwz+eBzmZa0SO3NbfRGzPCpDckykFXSdeX+MNtCOXm2/5n2tiOHp+vAF1aGrQ5ovTG01oOTGwnWLox33WWd1RvMc+QQ=\n"
)

KEY = SigningKey("act.example.org/ledger", bytes(range(32)))
NO_BREAK_SPACE = "\N{NO-BREAK SPACE}"


def note_of(*lines: str, text: str = TEXT) -> Note:
    return read_note(f"{text}\n{''.join(lines)}".encode())


def names(signatures: tuple[Signature, ...]) -> list[str]:
    return [one.name for one in signatures]


def test_the_specifications_example_verifies() -> None:
    note = read_note(C2SP_NOTE.encode())
    assert note.text == "This is an example message.\n"
    assert names(verify_note(note, [C2SP_KEY])) == ["example.com/foo"]
    assert note.encoded() == C2SP_NOTE.encode()


def test_what_go_signs_is_read_and_signed_alike() -> None:
    key = SigningKey.parse(PETER_SECRET)
    assert key.verifier == PETER
    assert sign_note(TEXT, [key]).encoded() == f"{TEXT}\n{PETER_LINE}".encode()
    assert key.secret_text() == PETER_SECRET
    # The key that Go's example makes of a seed of zeroes.
    enoch = SigningKey("EnochRoot", bytes(32))
    assert enoch.verifier == ENOCH
    assert sign_note(TEXT, [key, enoch]).encoded() == f"{TEXT}\n{PETER_LINE}{ENOCH_LINE}".encode()


def test_signatures_of_unknown_keys_are_ignored() -> None:
    note = note_of(PETER_LINE, ENOCH_LINE)
    assert names(verify_note(note, [PETER])) == ["PeterNeumann"]
    assert names(verify_note(note, [ENOCH])) == ["EnochRoot"]
    assert names(verify_note(note, [ENOCH, PETER])) == ["PeterNeumann", "EnochRoot"]
    with pytest.raises(UnverifiedNoteError, match=r"example\.com/foo"):
        verify_note(note, [C2SP_KEY])
    with pytest.raises(UnverifiedNoteError, match="no key"):
        verify_note(note, [])


def test_a_key_that_shares_only_its_name_or_its_id_is_unknown() -> None:
    other = SigningKey("PeterNeumann", bytes(32)).verifier
    assert other.key_id != PETER.key_id
    with pytest.raises(UnverifiedNoteError):
        verify_note(note_of(PETER_LINE), [other])
    renamed = PETER_LINE.replace("PeterNeumann", "CarmenSandiego")
    with pytest.raises(UnverifiedNoteError):
        verify_note(note_of(renamed), [PETER])


def test_one_wrong_signature_of_a_known_key_spoils_the_note() -> None:
    wrong = PETER_LINE[:60] + "ABCD" + PETER_LINE[60:]
    for lines in ((wrong,), (PETER_LINE, wrong), (ENOCH_LINE, wrong)):
        with pytest.raises(InvalidSignatureError, match="PeterNeumann"):
            verify_note(note_of(*lines), [PETER, ENOCH])
    assert names(verify_note(note_of(ENOCH_LINE, wrong), [ENOCH])) == ["EnochRoot"]


def test_a_repeated_signature_counts_once() -> None:
    assert names(verify_note(note_of(*[PETER_LINE] * 3), [PETER, PETER])) == ["PeterNeumann"]


def test_two_keys_of_one_name_and_id_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    other = SigningKey("PeterNeumann", bytes(32)).verifier
    key_id = PETER.key_id
    monkeypatch.setattr("act.domain.note._key_id", lambda *_: key_id)
    with pytest.raises(NoteError, match="only one"):
        verify_note(note_of(PETER_LINE), [PETER, other])


@pytest.mark.parametrize(
    "data",
    [
        TEXT.encode(),
        TEXT.encode() + b"\n",
        f"{TEXT}\n{PETER_LINE}"[:-1].encode(),
        b"\x01" + f"{TEXT}\n{PETER_LINE}".encode(),
        b"\xff" + f"{TEXT}\n{PETER_LINE}".encode(),
        f"{TEXT}\r\n{PETER_LINE}".encode(),
        f"{TEXT}\n{PETER_LINE}Unexpected line.\n".encode(),
        f"{TEXT}\n{PETER_LINE.replace('PeterNeumann', 'Peter Neumann')}".encode(),
        f"{TEXT}\n{PETER_LINE.replace('PeterNeumann', 'Peter+Neumann')}".encode(),
        f"{TEXT}\n{PETER_LINE.replace('PeterNeumann', '')}".encode(),
        f"{TEXT}\n{PETER_LINE.replace('PeterNeumann', f'Peter{NO_BREAK_SPACE}Neumann')}".encode(),
        f"{TEXT}\n{PETER_LINE.replace('— ', '- ')}".encode(),
        f"{TEXT}\n{PETER_LINE.replace('AM=', 'AN=')}".encode(),  # stray bits in the last letter
        f"{TEXT}\n{PETER_LINE.replace('=', '')}".encode(),
        f"{TEXT}\n— PeterNeumann x08gow==\n".encode(),  # an id, and nothing behind it
        f"{TEXT}\n{PETER_LINE * (MAX_SIGNATURES + 1)}".encode(),
        b"x" * MAX_NOTE_BYTES + f"\n\n{PETER_LINE}".encode(),
        b"",
        b"\n\n",
    ],
)
def test_what_is_no_note_is_refused(data: bytes) -> None:
    with pytest.raises(NoteError):
        read_note(data)


def test_as_many_signatures_as_the_specification_asks_for_are_read() -> None:
    note = note_of(*[f"— witness{number}.example AAAAAAAA\n" for number in range(MAX_SIGNATURES - 1)], PETER_LINE)
    assert names(verify_note(note, [PETER])) == ["PeterNeumann"]


def test_a_text_may_hold_empty_lines() -> None:
    text = "one\n\n\ntwo\n\n"
    note = sign_note(text, [KEY])
    assert read_note(note.encoded()) == note
    assert note.text == text


@pytest.mark.parametrize("text", ["", "no end", "tab\t\n", "return\r\n"])
def test_what_cannot_be_a_note_is_not_signed(text: str) -> None:
    with pytest.raises(NoteError):
        sign_note(text, [KEY])


def test_a_note_needs_a_signature() -> None:
    with pytest.raises(NoteError):
        sign_note(TEXT, [])


@given(st.data())
def test_no_altered_note_verifies_as_it_was(data: st.DataObject) -> None:
    """Whatever is altered: it is refused, or what verified is still the very text that was signed."""
    note = sign_note("act.example.org/ledger\n7\nabc\n", [KEY])
    altered = alterations(note.encoded(), data.draw)
    try:
        read = read_note(altered)
        verify_note(read, [KEY.verifier])
    except NoteError:
        return
    assert read == note


@given(st.data())
def test_no_altered_key_is_taken(data: st.DataObject) -> None:
    text = str(PETER)
    altered = alterations(text.encode(), data.draw)
    if altered == text.encode():
        return
    with pytest.raises(ValueError):  # no UTF-8, or a NoteError
        VerifierKey.parse(altered.decode())


@pytest.mark.parametrize("secret", [PETER_SECRET, SigningKey("w", b"\x07" * 32, COSIGNATURE).secret_text()])
def test_a_damaged_signing_key_is_refused_and_not_shown(secret: str) -> None:
    seed = secret.rpartition("+")[2]
    for at in range(len(secret)):
        for damaged in (secret[:at], secret[:at] + chr(ord(secret[at]) ^ 1) + secret[at + 1 :]):
            with pytest.raises(NoteError) as refused:
                SigningKey.parse(damaged)
            assert seed[:20] not in str(refused.value)
            assert refused.value.__cause__ is None


def test_a_key_of_another_kind_is_refused() -> None:
    for text in (
        # golang.org/x/mod/sumdb/note, note_test.go: a wrong length and an unknown kind, with ids that fit
        "PeterNeumann+cc469956+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TWBADKEY==",
        "PeterNeumann+173116ae+ZRpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW",
    ):
        with pytest.raises(NoteError):
            VerifierKey.parse(text)


@pytest.mark.parametrize("name", ["", "a b", "a+b", "a\n", "\N{IDEOGRAPHIC SPACE}"])
def test_a_bad_name_is_refused(name: str) -> None:
    with pytest.raises(NoteError):
        SigningKey(name, bytes(32))


def test_a_seed_is_never_shown() -> None:
    key = SigningKey("act", b"secret seed of thirty-two bytes!")
    assert "secret" not in repr(key)
    assert str(key.seed) not in str(key)
    with pytest.raises(NoteError):
        SigningKey("act", b"short")


def test_a_cosignature_of_another_witness_verifies() -> None:
    """FiloSottile/sunlight, cmd/skylight/testdata/witness/mirror: its key is made of a fixed seed (gen.go)."""
    name = "mirror.example.org"
    note = read_note(
        f"""rome2026h1.example.org
300
gw31yQrqZZCcEOPrzX+bpy3nJ6QgngTKn8G1m0i62uU=

— {name} P7FI7wAAAABpVGeAjA1S4pJm6MbcXjX7UUImu4azZtrfcVW2uyr/LXIYlwEJzXC0N0EiZkbqfLdXt/4gVEEuGmxJjAfXKMCISpsJAg==
""".encode()
    )
    key = VerifierKey.parse("mirror.example.org+3fb148ef+BAAjjch9GyYz0sJsJx7ALhbdAtz2ov0unbzSl1vMp94O")
    assert key.kind == COSIGNATURE
    (signature,) = verify_note(note, [key])
    assert signature.time_sec == 1_767_139_200
    later = Signature(signature.name, signature.key_id, (1_767_139_201).to_bytes(8) + signature.value[8:])
    with pytest.raises(InvalidSignatureError):
        verify_note(Note(note.text, (later,)), [key])


def test_a_cosignature_is_another_key_than_the_logs() -> None:
    witness = SigningKey("w.example", bytes(32), COSIGNATURE)
    log = SigningKey("w.example", bytes(32))
    assert witness.verifier.public == log.verifier.public
    assert witness.verifier.key_id != log.verifier.key_id
    note = sign_note(TEXT, [witness], time_sec=1_700_000_000)
    assert verify_note(note, [witness.verifier])[0].time_sec == 1_700_000_000
    with pytest.raises(UnverifiedNoteError):
        verify_note(note, [log.verifier])
    for short in (b"", note.signatures[0].value[:20]):
        with pytest.raises(InvalidSignatureError):
            witness.verifier.verify(TEXT, Signature("w.example", witness.verifier.key_id, short))


def test_base64_has_one_text_for_one_value() -> None:
    assert read_base64("AAECAw==") == b"\0\1\2\3"
    for other in ("AAECAx==", "AAECAw=", "AAECAw", "AAECAw== ", "AAEC\nAw==", "AAECA_==", "=", "é"):
        with pytest.raises(ValueError, match="base64"):
            read_base64(other)
