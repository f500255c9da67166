"""The proofs over HTTP, in C2SP's formats; and what an auditor does with them who trusts nothing of this code."""

from __future__ import annotations

import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from anyio.from_thread import start_blocking_portal

from act import signer as signers
from act.contract import event_bytes, leaf_hash
from act.domain.checkpoint import open_checkpoint
from act.domain.tiles import read_bundle, read_hashes
from act.domain.tlog_proof import TlogProof, verify_proof
from act.domain.tree import ProofError
from act.domain.witness import AddCheckpoint, decide
from act.keys import Keys
from tests.act.support import Act, plain_job, run, running
from tests.act.test_signer import JOBS, damage
from tests.databases import NewDatabase

IMMUTABLE = "public, max-age=31536000, immutable"


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sign often, so that no test waits."""
    monkeypatch.setattr(signers, "EVERY_SEC", 0.01)


def test_p4_one_event_is_proven_and_no_other_is_shown(url: str, keys: Keys) -> None:
    async def scenario() -> None:
        async with running(url, keys=keys) as act:
            await act.append(*JOBS)
            await act.signed()
            for index in (0, 1, 150, 255, 256, 299):
                answer = await act.http.get(f"/proof/inclusion?index={index}")
                assert answer.status_code == 200
                assert answer.headers["content-type"] == "text/plain; charset=utf-8"
                assert f'filename="{index}.tlog-proof"' in answer.headers["content-disposition"]
                proof = TlogProof.parse(answer.content)
                assert len(proof.path) <= 9, "the logarithm of 300"
                assert proof.extra is not None
                assert event_bytes(proof.extra) == JOBS[index]
                verify_proof(proof, proof.extra, keys.verifiers, origin=keys.origin)
                with pytest.raises(ProofError):
                    verify_proof(proof, proof.extra.replace(b"JOB-", b"JOB_"), keys.verifiers, origin=keys.origin)
                assert sum(raw[:40] in answer.content for raw in JOBS) <= 1

    run(scenario())


def test_a_witness_that_others_wrote_gets_the_body_it_takes(url: str, keys: Keys) -> None:
    async def scenario() -> None:
        logs = {keys.origin: keys.verifiers}
        known = None
        async with running(url, keys=keys) as act:
            for at in (0, 100, 200):
                await act.append(*JOBS[at : at + 100])
                await act.signed()
                size = 0 if known is None else known.size
                answer = await act.http.get(f"/proof/consistency?from={size}")
                known = decide(AddCheckpoint.parse(answer.content), logs, known).checkpoint
        assert known is not None
        assert known.size == 300

    run(scenario())


def test_tiles_are_full_and_immutable_or_partial_and_short_lived(url: str, keys: Keys) -> None:
    async def scenario() -> None:
        async with running(url, keys=keys) as act:
            await act.append(*JOBS)
            await act.signed()
            bundles = [
                (await act.http.get("/tile/entries/000"), 256),
                (await act.http.get("/tile/entries/001.p/44"), 44),
            ]
            entries = [entry for answer, width in bundles for entry in read_bundle(answer.content, width)]
            assert [event_bytes(entry) for entry in entries] == JOBS
            full = await act.http.get("/tile/0/000")
            part = await act.http.get("/tile/0/001.p/44")
            hashes = read_hashes(full.content, 256) + read_hashes(part.content, 44)
            assert hashes == [leaf_hash(entry) for entry in entries]
            above = await act.http.get("/tile/1/000.p/1")
            assert len(above.content) == 32
            assert full.headers["cache-control"] == bundles[0][0].headers["cache-control"] == IMMUTABLE
            assert part.headers["cache-control"] == above.headers["cache-control"] == "public, max-age=300"
            assert full.headers["content-type"] == "application/octet-stream"
            assert (await act.http.get("/checkpoint")).headers["cache-control"] == "no-store"

    run(scenario())


REFUSED = [
    ("/tile/0/000", 404, "44 of its hashes: ask for /tile/0/000.p/44"),
    ("/tile/0/000.p/45", 404, "44 of its hashes"),
    ("/tile/0/001", 404, "does not have it"),
    ("/tile/1/000.p/1", 404, "does not have it"),
    ("/tile/0/0", 404, "no path of a tile"),
    ("/tile/64/000", 404, "no path of a tile"),
    ("/tile/x/000", 404, "no path of a tile"),
    ("/tile/entries/000.p/256", 404, "no path of a tile"),
    ("/tile/0/000.p/3?x=1", 422, "no parameter"),
    ("/proof/inclusion?index=44", 404, "covers 44 entries"),
    ("/proof/inclusion?index=-1", 422, "no size or index"),
    ("/proof/inclusion?index=01", 422, "no size or index"),
    ("/proof/inclusion", 422, "must be given"),
    ("/proof/inclusion?idx=1", 422, "did you mean 'index'"),
    ("/proof/consistency", 422, "must be given"),
    ("/proof/consistency?from=45", 404, "does not go on from 45"),
    ("/proof/consistency?from=1&to=7", 404, "No checkpoint of 7"),
    ("/proof/consistency?from=9&to=7", 422, "above to"),
    ("/checkpoint?size=3", 422, "no parameter"),
]


def test_what_is_not_there_is_refused_in_words(url: str, keys: Keys) -> None:
    async def scenario() -> None:
        async with running(url, keys=keys) as act:
            await act.append(*JOBS[:44])
            await act.signed()
            for path, status, says in REFUSED:
                answer = await act.http.get(path)
                assert (answer.status_code, says in answer.json()["detail"]) == (status, True), (path, answer.text)
                assert answer.headers["content-type"] == "application/problem+json"

    run(scenario())


def test_nothing_is_shown_that_no_checkpoint_covers(url: str, keys: Keys) -> None:
    async def scenario() -> None:
        async with running(url) as act:
            for path in ("/checkpoint", "/tile/0/000.p/1", "/proof/inclusion?index=0", "/proof/consistency?from=0"):
                answer = await act.http.get(path)
                assert (answer.status_code, "No checkpoint" in answer.json()["detail"]) == (503, True)
        async with running(url, keys=keys) as act:
            await act.append(*JOBS[:10])
            await act.signed()
        async with running(url) as act:
            await act.append(*JOBS[10:20])
            assert (await act.http.get("/proof/inclusion?index=9")).status_code == 200
            assert (await act.http.get("/proof/inclusion?index=10")).status_code == 404
            assert (await act.http.get("/tile/entries/000.p/11")).status_code == 404

    run(scenario())


@pytest.mark.parametrize(
    ("change", "path"),
    [
        ("UPDATE events SET entry = {other} WHERE idx = 270", "/proof/inclusion?index=270"),
        ("UPDATE events SET leaf_hash = {other} WHERE idx = 271", "/proof/inclusion?index=270"),
        ("UPDATE events SET leaf_hash = {other} WHERE idx = 271", "/proof/consistency?from=100"),
        ("UPDATE tiles SET hashes = {tile}", "/proof/inclusion?index=7"),
        ("UPDATE tiles SET hashes = {tile}", "/tile/0/000"),
        ("DELETE FROM events WHERE idx = 7", "/tile/entries/000"),
    ],
)
def test_no_proof_is_given_that_does_not_hold(new_database: NewDatabase, keys: Keys, change: str, path: str) -> None:
    database = new_database("act")

    async def scenario() -> None:
        async with running(database.url, keys=keys) as act:
            await act.append(*JOBS[:100])
            await act.signed()
            await act.append(*JOBS[100:])
            await act.signed()
            assert (await act.http.get(path)).status_code == 200
            zero = "zeroblob({})" if database.kind == "sqlite" else "decode(repeat('00', {}), 'hex')"
            damage(database, change.format(other=zero.format(32), tile=zero.format(8192)))
            answer = await act.http.get(path)
            assert (answer.status_code, answer.json()["code"]) == (500, "damaged")
            assert "act verify" in answer.json()["detail"]

    run(scenario())


class _Proxy(BaseHTTPRequestHandler):
    """Gives a real socket's client what the service in this process answers."""

    portal: Any
    act: Act

    def do_GET(self) -> None:
        answer = self.portal.call(self.act.http.get, self.path)
        self.send_response(answer.status_code)
        self.end_headers()
        self.wfile.write(answer.content)

    def log_message(self, *_: object) -> None:
        """Be quiet."""


def test_p12_twohundred_lines_of_plain_python_check_a_running_act(
    url: str, keys: Keys, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from tests.act.test_verify_without_us import verifier

    held = tmp_path / "held"
    with start_blocking_portal() as portal, portal.wrap_async_context_manager(running(url, keys=keys)) as act:
        portal.call(act.append, *JOBS[:100])
        portal.call(act.signed)
        held.write_bytes(portal.call(act.http.get, "/checkpoint").content)
        portal.call(act.append, *JOBS[100:])
        portal.call(act.signed)
        handler = type("Handler", (_Proxy,), {"portal": portal, "act": act})
        with HTTPServer(("127.0.0.1", 0), handler) as server:
            threading.Thread(target=server.serve_forever, daemon=True).start()
            address = f"http://127.0.0.1:{server.server_port}"
            flags = ["--key", str(keys.signing.verifier), "--held", str(held), address]
            monkeypatch.setattr("sys.argv", ["verify_without_us.py", *flags])
            assert verifier.main() == 0
            assert "size 300" in capsys.readouterr().out
            server.shutdown()


def test_the_newest_checkpoint_is_the_ledgers(url: str, keys: Keys) -> None:
    async def scenario() -> None:
        async with running(url, keys=keys) as act:
            await act.append(*plain_job("JOB-1"))
            await act.signed()
            note = (await act.http.get("/checkpoint")).content
            assert note.decode().split("\n")[:2] == [keys.origin, "5"]
            assert open_checkpoint(note, keys.verifiers, origin=keys.origin).log

    run(scenario())
