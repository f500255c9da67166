"""Proof files, as C2SP tlog-proof has them: one entry, checked offline, and no other shown."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from act.contract import entry_bytes, leaf_hash
from act.domain.checkpoint import Checkpoint, CheckpointError, sign_checkpoint
from act.domain.encoding import write_base64
from act.domain.note import COSIGNATURE, NoteError, SigningKey, UnverifiedNoteError, VerifierKey, sign_note
from act.domain.tlog_proof import MAX_PROOF_BYTES, ProofFileError, TlogProof, verify_proof
from act.domain.tree import MAX_PROOF_HASHES, ProofError, inclusion_proof
from tests.act.support import NOW_MS, event
from tests.act.test_checkpoint import TESSERA_CHECKPOINT, TESSERA_ENTRIES, TESSERA_KEY
from tests.act.trees import alterations, mth, reader

ORIGIN = "act.example.org/ledger"
KEY = SigningKey(ORIGIN, bytes(range(32)))
ENTRIES = [entry_bytes(NOW_MS * 1000, event(f"JOB-{number}")) for number in range(100)]
LEAVES = [leaf_hash(entry) for entry in ENTRIES]


def proof_of(index: int, size: int = len(ENTRIES)) -> TlogProof:
    checkpoint = sign_checkpoint(Checkpoint(ORIGIN, size, mth(LEAVES[:size])), KEY)
    return TlogProof(index, tuple(inclusion_proof(index, size, reader(LEAVES))), checkpoint.encoded(), ENTRIES[index])


def check(data: bytes) -> bytes:
    """Check a file as ``act verify-proof`` does, and return its entry."""
    proof = TlogProof.parse(data)
    assert proof.extra is not None
    verify_proof(proof, proof.extra, [KEY.verifier], origin=ORIGIN)
    return proof.extra


def test_the_specifications_example_is_read() -> None:
    """c2sp.org/tlog-proof; its signatures and its extra are cut short there, so only the rest is checked."""
    text = """c2sp.org/tlog-proof@v1
extra YWdlLXYxLjIuMS1kYXJ3aW4tYXJtNjQudGFyLmd6
index 73894
gSKyXoYZUgZ6jduWYrkDOARinOMGJveXjgMkBTcdPlQ=
B95lDa8R83lS8n0eG+o0buTxRKQTYFi//1U8anccXmA=
EKNzoDWG8LGC0Yp9o+sv3qllpMP9uHQ9B20KNL+Q1zs=
RoopEkOdqkqYMB4MJXrbt/hMjOxsVn0IrWjpz1ZMMes=
AHCioX9nLjsrse6YhjRRmk1WUEirVOLLRoOQ6vfO5vk=

example.com/fancylog
109482
sFodV/vSp5O8n9a8QpW6PRY97tfOSW5bsc2Xl/EQi08=
"""
    proof = TlogProof.parse(text.encode())
    assert proof.index == 73_894
    assert proof.extra == b"age-v1.2.1-darwin-arm64.tar.gz"
    assert [one.hex()[:8] for one in proof.path] == ["8122b25e", "07de650d", "10a373a0", "468a2912", "0070a2a1"]
    assert proof.checkpoint.startswith(b"example.com/fancylog\n109482\n")
    assert proof.encoded() == text.encode()


def test_an_entry_of_another_log_is_proved() -> None:
    leaves = [leaf_hash(entry.encode()) for entry in TESSERA_ENTRIES]
    path = tuple(inclusion_proof(10, 15, reader(leaves)))
    proof = TlogProof.parse(TlogProof(10, path, TESSERA_CHECKPOINT.encode()).encoded())
    assert proof.extra is None
    verify_proof(proof, b"ileven", [TESSERA_KEY], origin="example.com/log/testdata")
    with pytest.raises(ProofError):
        verify_proof(proof, b"eleven", [TESSERA_KEY], origin="example.com/log/testdata")


@pytest.mark.parametrize("size", [1, 2, 3, 64, 65, 100])
def test_p4_one_event_is_verified_with_few_hashes_and_shows_no_other(size: int) -> None:
    for index in range(size):
        proof = proof_of(index, size)
        assert TlogProof.parse(proof.encoded()) == proof
        assert check(proof.encoded()) == ENTRIES[index]
        assert len(proof.path) <= math.ceil(math.log2(size))
        shown = proof.encoded().replace(write_base64(ENTRIES[index]).encode(), b"")
        assert not any(write_base64(entry)[40:-4].encode() in shown for entry in ENTRIES)


@given(st.data())
def test_no_altered_proof_file_is_believed(data: st.DataObject) -> None:
    proof = proof_of(data.draw(st.integers(0, 99)))
    altered = alterations(proof.encoded(), data.draw)
    try:
        entry = check(altered)
    except (ProofFileError, NoteError, CheckpointError, ProofError, AssertionError):
        return
    assert altered == proof.encoded()
    assert entry == proof.extra


def test_every_single_bit_of_a_proof_file_counts() -> None:
    data = proof_of(5, 9).encoded()
    for at in range(len(data)):
        for bit in range(8):
            altered = data[:at] + bytes([data[at] ^ 1 << bit]) + data[at + 1 :]
            with pytest.raises((ProofFileError, NoteError, CheckpointError, ProofError, AssertionError)):
                check(altered)


def test_the_proof_of_one_entry_is_none_of_another() -> None:
    proof = proof_of(5)
    for entry, index in ((ENTRIES[4], 5), (ENTRIES[5], 4), (ENTRIES[5], 100)):
        moved = TlogProof(index, proof.path, proof.checkpoint)
        with pytest.raises(ProofError):
            verify_proof(moved, entry, [KEY.verifier], origin=ORIGIN)


def test_a_proof_under_another_key_or_log_is_refused() -> None:
    proof = proof_of(5)
    other = SigningKey(ORIGIN, b"\x08" * 32).verifier
    with pytest.raises(UnverifiedNoteError):
        verify_proof(proof, ENTRIES[5], [other], origin=ORIGIN)
    with pytest.raises(CheckpointError):
        verify_proof(proof, ENTRIES[5], [KEY.verifier], origin="other.example")


def test_witnesses_can_be_asked_for() -> None:
    witness = SigningKey("w.example", b"\x01" * 32, COSIGNATURE)
    proof = proof_of(5)
    root = mth(LEAVES)
    witnessed = sign_note(Checkpoint(ORIGIN, 100, root).text, [KEY, witness], time_sec=1_700_000_000)

    def verify(checkpoint: bytes, witnesses: list[VerifierKey]) -> None:
        moved = TlogProof(5, proof.path, checkpoint)
        verify_proof(moved, ENTRIES[5], [KEY.verifier], origin=ORIGIN, witnesses=witnesses, quorum=1)

    verify(witnessed.encoded(), [witness.verifier])
    with pytest.raises(CheckpointError, match="witnesses"):
        verify(proof.checkpoint, [witness.verifier])
    with pytest.raises(CheckpointError, match="witnesses"):
        verify(witnessed.encoded(), [])


FILE = proof_of(5, 9).encoded().decode()
HEAD = "c2sp.org/tlog-proof@v1\n"
EXTRA = f"extra {write_base64(ENTRIES[5])}\n"


@pytest.mark.parametrize(
    "text",
    [
        "",
        FILE.replace("@v1", "@v2"),
        FILE.replace(HEAD, HEAD + "\n"),
        FILE.replace(HEAD, HEAD.strip() + "\r\n"),
        " " + FILE,
        FILE.replace("extra ", "extra  "),
        FILE.replace(EXTRA, "extra \n"),
        FILE.replace(EXTRA, "extra\n"),
        FILE.replace(EXTRA, EXTRA + EXTRA),
        FILE.replace(EXTRA, "").replace("index 5\n", f"index 5\n{EXTRA}"),
        FILE.replace("index 5", "index 05"),
        FILE.replace("index 5", "index -5"),
        FILE.replace("index 5", "index"),
        FILE.replace("index 5\n", ""),
        FILE.replace("index 5\n", "index 5\nindex 5\n"),
        FILE.replace("index 5\n", "index 5\nAAAA\n"),
        FILE.replace("index 5\n", f"index 5\n{(write_base64(bytes(32)) + chr(10)) * (MAX_PROOF_HASHES + 1)}"),
        FILE.partition("\n\n")[0],
        "\N{NO-BREAK SPACE}".join(FILE.split(" ", 1)),
        FILE + "x" * MAX_PROOF_BYTES,
    ],
)
def test_what_is_no_proof_file_is_refused(text: str) -> None:
    with pytest.raises(ProofFileError):
        TlogProof.parse(text.encode())
