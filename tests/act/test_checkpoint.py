"""Checkpoints, as C2SP tlog-checkpoint has them, and what must be true before one is believed."""

from __future__ import annotations

from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from act.contract import leaf_hash
from act.domain.checkpoint import Checkpoint, CheckpointError, open_checkpoint, sign_checkpoint
from act.domain.encoding import MAX_SIZE, read_base64
from act.domain.note import (
    COSIGNATURE,
    InvalidSignatureError,
    NoteError,
    SigningKey,
    UnverifiedNoteError,
    VerifierKey,
    sign_note,
)
from act.domain.tree import Frontier, append
from tests.act.trees import alterations

ROOT = sha256(b"root").digest()
ORIGIN = "act.example.org/ledger"
KEY = SigningKey(ORIGIN, bytes(range(32)))
WITNESSES = [SigningKey(f"w{number}.example", bytes([number]) * 32, COSIGNATURE) for number in (1, 2, 3)]
CHECKPOINT = Checkpoint(ORIGIN, 20_852_163, ROOT)

# testdata/log of transparency-dev/tessera: its entries, key, and signed checkpoint of 15
TESSERA_KEY = VerifierKey.parse("example.com/log/testdata+33d7b496+AeHTu4Q3hEIMHNqc6fASMsq3rKNx280NI+oO5xCFkkSx")
TESSERA_ENTRIES = [
    "one",
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eit",
    "nain",
    "ten",
    "ileven",
    "twelf",
    "threeten",
    "fourten",
    "fivten",
]
TESSERA_CHECKPOINT = """example.com/log/testdata
15
rKbDipCvhuX1GZ7g5BBe8sA6BbJ7ja/1nk427v383cs=

— example.com/log/testdata M9e0luh4jTG+UMBqOUo9/q+yAEvx1ilBEniMvjf1zfcBOhg+CKubMt53MvIt/uEWP6zdkdIQzd/fmwlM/dlPWF74ewI=
"""


def test_a_checkpoint_of_another_log_verifies_down_to_its_entries() -> None:
    verified = open_checkpoint(TESSERA_CHECKPOINT.encode(), [TESSERA_KEY], origin="example.com/log/testdata")
    frontier, _ = append(Frontier(), [leaf_hash(entry.encode()) for entry in TESSERA_ENTRIES])
    assert (frontier.size, frontier.root) == (verified.checkpoint.size, verified.checkpoint.root)


def test_a_larger_tree_of_another_log() -> None:
    """FiloSottile/sunlight, cmd/skylight/testdata: 300 records; more than one tile."""
    frontier, _ = append(Frontier(), [leaf_hash(b"record %d" % number) for number in range(300)])
    assert frontier.root == read_base64("gw31yQrqZZCcEOPrzX+bpy3nJ6QgngTKn8G1m0i62uU=")


def test_the_text_is_the_specifications() -> None:
    """c2sp.org/tlog-checkpoint's example, and golang.org/x/mod/sumdb/tlog's (note_test.go)."""
    text = "example.com/behind-the-sofa\n20852163\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n"
    checkpoint = Checkpoint.parse(text)
    assert (checkpoint.origin, checkpoint.size) == ("example.com/behind-the-sofa", 20_852_163)
    assert checkpoint.root.hex() == "0ac5186a91863e8e1d90c808014aa89bf5da8e3ee1d9f07630f0378f68f1ab62"
    assert checkpoint.text == text
    go = "go.sum database tree\n123456789012\nTszzRgjTG6xce+z2AG31kAXYKBgQVtCSCE40HmuwBb0=\n"
    assert Checkpoint("go.sum database tree", 123_456_789_012, leaf_hash(b"hello world")).text == go


def test_extension_lines_are_kept() -> None:
    text = f"{CHECKPOINT.text}more\nand more\n"
    assert Checkpoint.parse(text).extensions == ("more", "and more")
    assert Checkpoint.parse(text).text == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "\n",
        "origin\n1\n",
        CHECKPOINT.text[:-1],
        CHECKPOINT.text + "\n",
        CHECKPOINT.text + "no end",
        CHECKPOINT.text + "\nafter an empty line\n",
        CHECKPOINT.text.replace(ORIGIN, ""),
        CHECKPOINT.text.replace("20852163", "020852163"),
        CHECKPOINT.text.replace("20852163", "+20852163"),
        CHECKPOINT.text.replace("20852163", "-1"),
        CHECKPOINT.text.replace("20852163", ""),
        CHECKPOINT.text.replace("20852163", "20_852_163"),
        CHECKPOINT.text.replace("20852163", "five"),
        CHECKPOINT.text.replace("20852163", "\N{ARABIC-INDIC DIGIT ONE}"),
        CHECKPOINT.text.replace("20852163", str(MAX_SIZE + 1)),
        CHECKPOINT.text.replace("=\n", "\n"),
        "origin\n1\nAAAA\n",
        CHECKPOINT.text.replace(ORIGIN, "tab\there"),
    ],
)
def test_what_is_no_checkpoint_is_refused(text: str) -> None:
    with pytest.raises(CheckpointError):
        Checkpoint.parse(text)


@given(
    st.builds(
        Checkpoint,
        st.text(st.characters(blacklist_categories=["Cs", "Cc"]), min_size=1),
        st.integers(0, MAX_SIZE),
        st.binary(min_size=32, max_size=32),
        st.lists(st.text(st.characters(blacklist_categories=["Cs", "Cc"]), min_size=1), max_size=2).map(tuple),
    )
)
def test_every_checkpoint_can_be_signed_and_opened(checkpoint: Checkpoint) -> None:
    note = sign_checkpoint(checkpoint, KEY)
    opened = open_checkpoint(note.encoded(), [KEY.verifier], origin=checkpoint.origin)
    assert opened.checkpoint == checkpoint
    assert opened.note == note


def test_a_checkpoint_of_another_log_is_refused() -> None:
    note = sign_checkpoint(Checkpoint("other.example", 1, ROOT), KEY)
    with pytest.raises(CheckpointError, match=r"other\.example"):
        open_checkpoint(note.encoded(), [KEY.verifier], origin=ORIGIN)


def test_a_note_that_is_no_checkpoint_is_refused() -> None:
    with pytest.raises(CheckpointError):
        open_checkpoint(sign_note("hello\n", [KEY]).encoded(), [KEY.verifier], origin=ORIGIN)


def test_after_a_rotation_old_and_new_notes_verify() -> None:
    new_key = SigningKey(ORIGIN, b"\x09" * 32)
    keys = [KEY.verifier, new_key.verifier]
    for signers in ([KEY], [new_key], [KEY, new_key]):
        verified = open_checkpoint(sign_checkpoint(CHECKPOINT, *signers).encoded(), keys, origin=ORIGIN)
        assert len(verified.log) == len(signers)
    both = sign_checkpoint(CHECKPOINT, KEY, new_key).encoded()
    assert open_checkpoint(both, [KEY.verifier], origin=ORIGIN).checkpoint == CHECKPOINT
    with pytest.raises(UnverifiedNoteError):
        open_checkpoint(sign_checkpoint(CHECKPOINT, new_key).encoded(), [KEY.verifier], origin=ORIGIN)


def test_witnesses_alone_do_not_make_a_checkpoint_the_logs() -> None:
    witnesses = [one.verifier for one in WITNESSES]
    note = sign_note(CHECKPOINT.text, WITNESSES, time_sec=1)
    with pytest.raises(UnverifiedNoteError):
        open_checkpoint(note.encoded(), [KEY.verifier], origin=ORIGIN, witnesses=witnesses)


def test_a_quorum_of_witnesses() -> None:
    witnesses = [one.verifier for one in WITNESSES]
    note = sign_note(CHECKPOINT.text, [KEY, *WITNESSES[:2]], time_sec=1_700_000_000).encoded()
    verified = open_checkpoint(note, [KEY.verifier], origin=ORIGIN, witnesses=witnesses, quorum=2)
    assert [one.time_sec for one in verified.witnesses] == [1_700_000_000] * 2
    with pytest.raises(CheckpointError, match="2 of the witnesses"):
        open_checkpoint(note, [KEY.verifier], origin=ORIGIN, witnesses=witnesses, quorum=3)
    again = WITNESSES[0].sign(CHECKPOINT.text, time_sec=2)
    twice = sign_note(CHECKPOINT.text, [KEY, WITNESSES[0]], time_sec=1).encoded() + again.line.encode()
    with pytest.raises(CheckpointError, match="1 of the witnesses"):
        open_checkpoint(twice, [KEY.verifier], origin=ORIGIN, witnesses=witnesses, quorum=2)


def test_a_wrong_signature_of_a_known_witness_spoils_the_checkpoint() -> None:
    note = sign_note(CHECKPOINT.text, [KEY], time_sec=1).encoded()
    forged = sign_note(Checkpoint(ORIGIN, 1, ROOT).text, [WITNESSES[0]], time_sec=1).signatures[0]
    with pytest.raises(InvalidSignatureError):
        open_checkpoint(note + forged.line.encode(), [KEY.verifier], origin=ORIGIN, witnesses=[WITNESSES[0].verifier])


@given(st.data())
def test_no_altered_checkpoint_is_believed(data: st.DataObject) -> None:
    note = sign_checkpoint(CHECKPOINT, KEY).encoded()
    altered = alterations(note, data.draw)
    try:
        verified = open_checkpoint(altered, [KEY.verifier], origin=ORIGIN)
    except (NoteError, CheckpointError):
        return
    assert altered == note
    assert verified.checkpoint == CHECKPOINT
