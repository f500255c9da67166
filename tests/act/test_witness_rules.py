"""What a witness signs and refuses, as C2SP tlog-witness has it, and what a watcher of the log concludes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from act.domain.checkpoint import Checkpoint, CheckpointError, open_checkpoint, sign_checkpoint
from act.domain.encoding import write_base64
from act.domain.note import COSIGNATURE, ED25519, SigningKey, VerifierKey
from act.domain.tree import EMPTY_ROOT, MAX_PROOF_HASHES, ProofError, consistency_proof
from act.domain.witness import (
    MAX_REQUEST_BYTES,
    AddCheckpoint,
    RefusedError,
    compare,
    cosign,
    decide,
    origin_of,
    proof_sizes,
)
from tests.act.trees import leaves_of, mth, reader

ORIGIN = "act.example.org/ledger"
KEY = SigningKey(ORIGIN, bytes(range(32)))
LOGS = {ORIGIN: [KEY.verifier]}
LEAVES = leaves_of(60)
REWRITTEN = [*LEAVES[:2], LEAVES[0], *LEAVES[3:]]


def at(size: int, leaves: list[bytes] = LEAVES) -> Checkpoint:
    return Checkpoint(ORIGIN, size, mth(leaves[:size]))


def request(old_size: int, size: int, leaves: list[bytes] = LEAVES, key: SigningKey = KEY) -> AddCheckpoint:
    proof = consistency_proof(old_size, size, reader(leaves)) if old_size <= size else []
    return AddCheckpoint(old_size, tuple(proof), sign_checkpoint(at(size, leaves), key).encoded())


def refusal(asked: AddCheckpoint, known: Checkpoint | None) -> RefusedError:
    with pytest.raises(RefusedError) as refused:
        decide(asked, LOGS, known)
    return refused.value


SIGSUM = "sigsum.org/v1/tree/4d6d8825a6bb689d459628312889dfbb0bcd41b5211d9e1ce768b0ff0309e562"
SIGSUM_KEY = VerifierKey(
    SIGSUM, bytes.fromhex("ffdc2d4d98e4124d3feaf788c0c2f9abfd796083d1f0495437f302ec79cf100f"), ED25519
)
SIGSUM_1 = f"""{SIGSUM}
1
KgAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=

— {SIGSUM} UgIom7fPZTqpxWWhyjWduBvTvGVqsokMbqTArsQilegKoFBJQjUFAmQ0+YeSPM3wfUQMFSzVnnNuWRTYrajXpNUbIQY=
"""
SIGSUM_3 = f"""{SIGSUM}
3
RcCI1Nk56ZcSmIEfIn0SleqtV7uvrlXNccFx595Iwl0=

— {SIGSUM} UgIom2VbtIcdFbwFAy1n7s6IkAxIY6J/GQOTuZF2ORV39d75cbAj2aQYwyJre36kezNobZs4SUUdrcawfAB8WVrx6go=
"""
SIGSUM_5 = f"""{SIGSUM}
5
QrtXrQZCCvpIgsSmOsah7HdICzMLLyDfxToMql9WTjY=

— {SIGSUM} UgIomw/EOJmWi0i1FQsOj+etB7F8IccFam/jgd6wzRns4QPVmyEZtdvl1U2KEmLOZ/ASRcWJi0tW90dJWAShei7sDww=
"""
SIGSUM_FIVE = f"""{SIGSUM}
five
KgAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=

— {SIGSUM} UgIom4JTC2MerrFcJ5xDcWHzRPVB6zzGBIw4OFqcKDflqjH4q4xY5vMxUxyczvdIlEwFYf7ivQU4KoWan2bLmzLx0go=
"""
FROM_1 = "KgEAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\nKgIAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n"
FROM_5 = "+fUDV+k970B4I3uKrqJM4aP1lloPZP8mvr2Z4wRw2LI=\nKgQAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n"
FROM_3 = """KgIAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=
KgMAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=
wgiIFdZfYNv6WU1OllBKsWnLYIS/DBMqt8Uh/S4OukE=
KgQAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=
"""


def answer(body: str, known: Checkpoint | None) -> tuple[int, Checkpoint | None]:
    """Return a witness's answer to a body, and the checkpoint that it keeps from then on."""
    try:
        return 200, decide(AddCheckpoint.parse(body.encode()), {SIGSUM: [SIGSUM_KEY]}, known).checkpoint
    except RefusedError as refused:
        return refused.status, known


def test_what_sunlights_witness_answers() -> None:
    """The requests and answers of FiloSottile/sunlight, internal/witness/witness_test.go, in their order."""
    wrong_proof = FROM_1[:-5] + "BAA=\n"
    conversation = [
        (f"old 0\n\n{SIGSUM_1}", 200),
        (f"old 1\n{FROM_1}\n{SIGSUM_3.replace('6go=', '6gs=')}", 403),
        # Sunlight says 403 here: its reader of base64 lets the stray bits of the last letter pass.
        (f"old 1\n{FROM_1}\n{SIGSUM_3.replace('6go=', '6gx=')}", 400),
        (f"old 1\n{FROM_1}\n{SIGSUM_3.replace('e562', 'e563')}", 404),
        (f"old 1\n\n{SIGSUM_3}", 422),
        (f"old 1\n{wrong_proof}\n{SIGSUM_3}", 422),
        (f"old 1\n{FROM_1}\n{SIGSUM_3}", 200),
        (f"old 1\n{FROM_5}\n{SIGSUM_5}", 409),
        (f"old 3\n{FROM_3}\n{SIGSUM_5}", 200),
        (f"old 0\n\n{SIGSUM_5}", 409),
        (f"old 5\n\n{SIGSUM_5.partition('—')[0][:-1]}", 400),
        (f"old 5\n\n{SIGSUM_FIVE}", 400),
    ]
    known: Checkpoint | None = None
    for body, status in conversation:
        answered, known = answer(body, known)
        assert answered == status, body
    assert known is not None
    assert known.size == 5


def test_the_specifications_request_is_read() -> None:
    """c2sp.org/tlog-witness, "add-checkpoint"."""
    sofa = "example.com/behind-the-sofa"
    body = f"""old 20852014
PlRNCrwHpqhGrupue0L7gxbjbMiKA9temvuZZDDpkaw=
jrJZDmY8Y7SyJE0MWLpLozkIVMSMZcD5kvuKxPC3swk=
5+pKlUdi2LeF/BcMHBn+Ku6yhPGNCswZZD1X/6QgPd8=
/6WVhPs2CwSsb5rYBH5cjHV/wSmA79abXAwhXw3Kj/0=

{sofa}
20852163
CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=

— {sofa} Az3grlgtzPICa5OS8npVmf1Myq/5IZniMp+ZJurmRDeOoRDe4URYN7u5/Zhcyv2q1gGzGku9nTo+zyWE+xeMcTOAYQ8=
— {sofa} opLqBQsREYCgu6xQkYQwJr9fo45a62DN9EdmHXnZdXNqlcVGlCum2Wks+49/V6267UEjw6QUXTS5Rovnzv++qbSzm9Q=
"""
    asked = AddCheckpoint.parse(body.encode())
    assert asked.old_size == 20_852_014
    assert [one.hex()[:8] for one in asked.proof] == ["3e544d0a", "8eb2590e", "e7ea4a95", "ffa59584"]
    assert asked.encoded() == body.encode()
    assert origin_of(asked) == sofa


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"old 1",
        b"old 1\n",
        b"new 1\n\nx",
        b"old 01\n\nx",
        b"old -1\n\nx",
        b"old\n\nx",
        b"old 1 \n\nx",
        b"old 1\r\n\r\nx",
        b"old 1\nAAAA\n\nx",
        b"old 1\n\xc2\xa0\n\nx",
        b"old 1\n" + (write_base64(bytes(32)).encode() + b"\n") * (MAX_PROOF_HASHES + 1) + b"\nx",
        b"old 1\n\n" + b"x" * MAX_REQUEST_BYTES,
    ],
)
def test_what_is_no_request_is_refused(body: bytes) -> None:
    with pytest.raises(RefusedError) as refused:
        AddCheckpoint.parse(body)
    assert refused.value.status == 400


def test_as_many_hashes_as_may_be_sent_are_read() -> None:
    asked = AddCheckpoint(1, (bytes(32),) * MAX_PROOF_HASHES, b"x\n")
    assert AddCheckpoint.parse(asked.encoded()) == asked


@given(st.integers(0, 60), st.integers(0, 60))
def test_every_growth_is_signed_and_no_rewriting(old_size: int, size: int) -> None:
    known = at(old_size) if old_size else None
    asked = AddCheckpoint.parse(request(old_size, size).encoded())
    if size < old_size:
        assert refusal(asked, known).status == 400
        return
    assert decide(asked, LOGS, known).checkpoint == at(size)
    rewritten = request(old_size, size, REWRITTEN)
    if old_size > 2:
        assert refusal(rewritten, known).status == 422
    else:
        assert decide(rewritten, LOGS, known).checkpoint == at(size, REWRITTEN)


def test_another_last_checkpoint_is_named() -> None:
    refused = refusal(request(3, 9), at(5))
    assert (refused.status, refused.known_size, refused.body) == (409, 5, "5\n")
    assert refusal(request(3, 9), None).body == "0\n"
    assert refusal(request(0, 9), at(5)).body == "5\n"


def test_the_signature_comes_before_the_sizes() -> None:
    stranger = SigningKey(ORIGIN, b"\x05" * 32)
    assert refusal(request(9, 3, key=stranger), at(5)).status == 403
    assert refusal(request(9, 3), at(5)).status == 400


def test_a_log_that_is_not_watched_is_unknown() -> None:
    with pytest.raises(RefusedError) as refused:
        decide(request(0, 3), {"other.example": [KEY.verifier]}, None)
    assert refused.value.status == 404


def test_an_empty_tree_has_one_root() -> None:
    empty = AddCheckpoint(0, (), sign_checkpoint(Checkpoint(ORIGIN, 0, EMPTY_ROOT), KEY).encoded())
    assert decide(empty, LOGS, None).checkpoint.size == 0
    other = AddCheckpoint(0, (), sign_checkpoint(Checkpoint(ORIGIN, 0, LEAVES[0]), KEY).encoded())
    assert refusal(other, None).status == 422


def test_a_proof_where_none_is_needed_is_refused() -> None:
    for old_size, size, known in ((0, 5, None), (5, 5, at(5))):
        asked = AddCheckpoint(old_size, (LEAVES[0],), request(old_size, size).checkpoint)
        assert refusal(asked, known).status == 422


def test_what_a_witness_signs_counts_for_a_quorum() -> None:
    witness = SigningKey("w.example/1", b"\x01" * 32, COSIGNATURE)
    asked = request(3, 9)
    verified = decide(asked, LOGS, at(3))
    line = cosign(verified.checkpoint, witness, time_sec=1_700_000_000).line
    opened = open_checkpoint(
        asked.checkpoint + line.encode(), LOGS[ORIGIN], origin=ORIGIN, witnesses=[witness.verifier], quorum=1
    )
    assert opened.witnesses[0].time_sec == 1_700_000_000
    with pytest.raises(ValueError, match="when"):
        cosign(verified.checkpoint, witness, time_sec=0)


@given(st.integers(0, 60), st.integers(0, 60))
def test_p3_a_watcher_tells_growth_from_rewriting(kept: int, size: int) -> None:
    smaller, larger = proof_sizes(at(kept), at(size))
    proof = consistency_proof(smaller, larger, reader(LEAVES))
    expected = "grown" if kept < size else "behind" if kept > size else "same"
    assert compare(at(kept), at(size), proof) == expected
    if smaller > 2:
        forged = consistency_proof(smaller, larger, reader(REWRITTEN))
        for other in (proof, forged):
            with pytest.raises(ProofError):
                compare(at(kept), at(size, REWRITTEN), other)


def test_a_watcher_starts_with_whatever_it_sees() -> None:
    assert proof_sizes(None, at(7)) == (0, 7)
    assert compare(None, at(7), []) == "first"
    with pytest.raises(ProofError):
        compare(None, Checkpoint(ORIGIN, 0, LEAVES[0]), [])


def test_a_watcher_knows_its_log() -> None:
    with pytest.raises(CheckpointError):
        compare(at(7), Checkpoint("other.example", 7, at(7).root), [])
