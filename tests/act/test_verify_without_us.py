"""The auditor's own verifier: it knows nothing of this project, and must agree with it on what is true."""

from __future__ import annotations

import importlib.util
import json
import string
import subprocess
import sys
import threading
import tracemalloc
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import islice
from pathlib import Path
from types import ModuleType

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from act.contract import entry_bytes, event_bytes, leaf_hash
from act.domain.checkpoint import Checkpoint, sign_checkpoint
from act.domain.note import COSIGNATURE, SigningKey, sign_note
from act.domain.tiles import ENTRIES, Tile, tiles_of, write_bundle
from act.domain.tree import Frontier, append
from tests.act.support import NOW_MS, event, plain_job

SCRIPT = Path(__file__).parents[2] / "examples" / "verify_without_us.py"
ORIGIN = "act.example.org/ledger"
KEY = SigningKey(ORIGIN, bytes(range(32)))
VKEY = str(KEY.verifier)
NOW_US = NOW_MS * 1000
Run = Callable[..., tuple[int, str]]


def load() -> ModuleType:
    spec = importlib.util.spec_from_file_location("verify_without_us", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


verifier = load()


@pytest.fixture
def verify(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run the verifier in this process; return its exit code and what it printed."""

    def run(source: object, *options: object, key: str = VKEY) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["verify", "--key", key, *map(str, options), str(source)])
        code = verifier.main()
        return code, capsys.readouterr().out

    return run


def events_of(count: int) -> list[bytes]:
    """Return the events of jobs that overlap, with a lane's own in between."""

    def stories() -> Iterator[bytes]:
        number = 1
        while True:
            one, two = plain_job(f"JOB-{number}"), plain_job(f"JOB-{number + 1}")
            for pair in zip(one, two, strict=True):
                yield from pair
            yield event("LANE-ai_extract", number // 2 + 1, entity="lane", status="paused")
            number += 2

    return list(islice(stories(), count))


def entries_of(count: int) -> list[bytes]:
    return [entry_bytes(NOW_US + number, raw) for number, raw in enumerate(events_of(count))]


def checkpoint_of(entries: Iterable[bytes], *keys: SigningKey) -> bytes:
    frontier, _ = append(Frontier(), map(leaf_hash, entries))
    return sign_checkpoint(Checkpoint(ORIGIN, frontier.size, frontier.root), *(keys or (KEY,))).encoded()


def export_lines(entries: list[bytes], *, with_hashes: bool) -> Iterator[str]:
    head = {"act_export": 1, "origin": ORIGIN, "checkpoint": checkpoint_of(entries).decode(), "format": "cloudevents"}
    yield json.dumps(head)
    for index, entry in enumerate(entries):
        received_us = int(entry.split(b"\n", 2)[1])
        line = {"index": index, "received_us": received_us, "event": event_bytes(entry).decode()}
        if with_hashes:
            line["leaf_hash"] = leaf_hash(entry).hex()
        yield json.dumps(line, ensure_ascii=False)


def write_export(path: Path, entries: list[bytes], *, with_hashes: bool = True) -> Path:
    path.write_text("".join(f"{line}\n" for line in export_lines(entries, with_hashes=with_hashes)))
    return path


def site_of(entries: list[bytes]) -> dict[str, bytes]:
    """Return all that a log serves, by path; full tiles and the partial ones of this size."""
    leaves = list(map(leaf_hash, entries))
    _, runs = append(Frontier(), leaves)
    site = {"/checkpoint": checkpoint_of(entries)}
    for tile in tiles_of(len(entries)):
        hashes = runs[tile.level * 8].hashes[tile.first : tile.first + tile.width]
        site[f"/{tile.path}"] = b"".join(hashes)
        if tile.level == 0:
            bundle = Tile(ENTRIES, tile.index, tile.width)
            site[f"/{bundle.path}"] = write_bundle(entries[tile.first : tile.first + tile.width])
    return site


@contextmanager
def serving(site: dict[str, bytes]) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = site.get(self.path)
            self.send_response(200 if body is not None else 404)
            self.send_header("Content-Length", str(len(body or b"")))
            self.end_headers()
            self.wfile.write(body or b"")

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()


def good(entries: list[bytes]) -> tuple[int, str]:
    root = append(Frontier(), map(leaf_hash, entries))[0].root
    return 0, f"size {len(entries)}\nroot {root.hex()}\nOK\n"


def first_bad(answer: tuple[int, str], index: int) -> bool:
    return answer[0] == 1 and answer[1].startswith(f"BAD: entry {index}:")


def test_it_is_short_and_needs_the_standard_library_only(tmp_path: Path) -> None:
    assert len(SCRIPT.read_text().splitlines()) < 200
    entries = entries_of(30)
    export = write_export(tmp_path / "export.jsonl", entries)
    # -I and -S: neither this project nor any installed package can be imported.
    command = [sys.executable, "-I", "-S", str(SCRIPT), "--key", VKEY, str(export)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (*good(entries), "")
    told = subprocess.run([*command[:4], "--help"], capture_output=True, text=True, check=True)
    assert "--key" in told.stdout
    assert "RFC 6962" in told.stdout


@pytest.mark.parametrize("size", [0, 1, 2, 255, 256, 257, 700])
def test_p12_a_true_ledger_is_ok(verify: Run, tmp_path: Path, size: int) -> None:
    entries = entries_of(size)
    for with_hashes in (True, False):
        assert verify(write_export(tmp_path / "e", entries, with_hashes=with_hashes)) == good(entries)
    with serving(site_of(entries)) as url:
        assert verify(url) == good(entries)
        assert verify(f"{url}/") == good(entries)


@pytest.mark.slow
def test_tiles_of_the_second_level_are_checked(verify: Run) -> None:
    raw = event("LANE-a", 1, entity="lane", status="paused", lane="a")
    entries = [
        entry_bytes(
            NOW_US,
            raw.replace(b'"LANE-a.1"', b'"LANE-a.%d"' % seq).replace(b"00000000000000000001", b"%020d" % seq),
        )
        for seq in range(1, 66_001)
    ]
    site = site_of(entries)
    with serving(site) as url:
        assert verify(url) == good(entries)
        whole = site["/tile/1/000"]
        site["/tile/1/000"] = whole[: 254 * 32] + bytes(32) + whole[255 * 32 :]
        assert first_bad(verify(url), 254 * 256)


def test_the_paths_are_those_of_the_specification() -> None:
    for level, index, width in ((0, 0, 256), (1, 67, 5), (0, 1_234_067, 256), (2, 999_000, 255), (0, 1000, 1)):
        assert verifier.tile_url("", str(level), index, width) == f"/{Tile(level, index, width).path}"


@pytest.mark.parametrize("size", [300])
@pytest.mark.parametrize("index", [0, 7, 255, 256, 299])
def test_an_altered_entry_is_named(verify: Run, tmp_path: Path, size: int, index: int) -> None:
    entries = entries_of(size)
    site = site_of(entries)
    altered = list(entries)
    altered[index] = altered[index].replace(b"ticket-of", b"ticket_of")
    assert altered != entries
    path = tmp_path / "e"
    true_lines = write_export(path, entries).read_text().split("\n")
    true_lines[index + 1] = true_lines[index + 1].replace("ticket-of", "ticket_of")
    path.write_text("\n".join(true_lines))
    assert first_bad(verify(path), index)
    tile = Tile(ENTRIES, index // 256, 256 if index < 256 else size - 256)
    site[f"/{tile.path}"] = write_bundle(altered[tile.first : tile.first + tile.width])
    with serving(site) as url:
        assert first_bad(verify(url), index)


def test_an_altered_entry_whose_hash_was_altered_too_changes_the_root(verify: Run, tmp_path: Path) -> None:
    entries = entries_of(20)
    altered = [entry.replace(b"ticket-of-JOB-1", b"ticket-of-JOB-9") for entry in entries]
    lines = [*islice(export_lines(entries, with_hashes=True), 1), *list(export_lines(altered, with_hashes=True))[1:]]
    (tmp_path / "e").write_text("\n".join(lines))
    code, told = verify(tmp_path / "e")
    assert code == 1
    assert told.startswith("BAD: the root of the 20 entries")


@pytest.mark.parametrize("kind", ["swap", "delete", "repeat", "truncate", "append", "empty line"])
def test_lines_out_of_place_are_named(verify: Run, tmp_path: Path, kind: str) -> None:
    lines = list(export_lines(entries_of(20), with_hashes=True))
    expected = 4
    if kind == "swap":
        lines[5], lines[6] = lines[6], lines[5]
    elif kind == "delete":
        del lines[5]
    elif kind == "repeat":
        lines.insert(5, lines[4])
    elif kind == "truncate":
        del lines[5:]
    elif kind == "append":
        lines.append(list(export_lines(entries_of(21), with_hashes=True))[21])
        expected = 20
    else:
        lines.insert(5, "")
    (tmp_path / "e").write_text("\n".join(lines))
    assert first_bad(verify(tmp_path / "e"), expected)


def test_a_line_that_is_no_utf8_is_named(verify: Run, tmp_path: Path) -> None:
    export = write_export(tmp_path / "e", entries_of(20))
    export.write_bytes(
        export.read_bytes().replace(b'ticket-of-JOB-2","task_id":null'.replace(b'"', b'\\"'), b"\xff", 1)
    )
    assert first_bad(verify(export), 1)


def test_a_gap_in_a_source_is_named_although_the_log_has_signed_it(verify: Run, tmp_path: Path) -> None:
    entries = entries_of(40)
    missing = next(at for at, entry in enumerate(entries) if b'"JOB-1.3"' in entry)
    del entries[missing]
    found = next(at for at, entry in enumerate(entries) if b'"JOB-1.4"' in entry)
    assert first_bad(verify(write_export(tmp_path / "e", entries)), found)
    with serving(site_of(entries)) as url:
        assert first_bad(verify(url), found)


def test_a_rewritten_ledger_is_given_away_by_a_checkpoint_that_was_kept(verify: Run, tmp_path: Path) -> None:
    """Who holds database and key can sign another story: only what had left the house tells."""
    entries = entries_of(60)
    rewritten = [entry.replace(b"ticket-of-JOB-1", b"ticket-of-JOB-9") for entry in entries]
    held = tmp_path / "held"
    export = write_export(tmp_path / "e", rewritten)
    assert verify(export) == good(rewritten)
    for size in (1, 32, 60):
        held.write_bytes(checkpoint_of(entries[:size]))
        code, told = verify(export, "--held", held)
        assert code == 1
        assert told.startswith(f"BAD: the first {size} entries were changed")
        assert verify(write_export(tmp_path / "true", entries), "--held", held) == good(entries)
    held.write_bytes(checkpoint_of(entries_of(61)))
    assert first_bad(verify(write_export(tmp_path / "true", entries), "--held", held), 60)


def test_the_key_may_be_in_a_file(verify: Run, tmp_path: Path) -> None:
    (tmp_path / "log.vkey").write_text(f"{VKEY}\n")
    entries = entries_of(3)
    assert verify(write_export(tmp_path / "e", entries), key=str(tmp_path / "log.vkey")) == good(entries)


def test_signatures_of_others_do_not_disturb(verify: Run) -> None:
    entries = entries_of(3)
    text = checkpoint_of(entries).decode().rpartition("\n\n")[0] + "\n"
    witness = SigningKey("w.example", bytes(32), COSIGNATURE)
    site = site_of(entries)
    site["/checkpoint"] = sign_note(text, [witness, KEY, SigningKey(ORIGIN, b"\x01" * 32)], time_sec=5).encoded()
    with serving(site) as url:
        assert verify(url) == good(entries)


@pytest.mark.parametrize("keys", [[SigningKey(ORIGIN, b"\x01" * 32)], [SigningKey("other.example", bytes(range(32)))]])
def test_a_checkpoint_of_another_key_is_refused(verify: Run, keys: list[SigningKey]) -> None:
    entries = entries_of(3)
    with serving(site_of(entries) | {"/checkpoint": checkpoint_of(entries, *keys)}) as url:
        code, told = verify(url)
    assert code == 1
    assert told.startswith("BAD: the checkpoint is not signed by act.example.org")


def test_a_checkpoint_of_another_log_under_the_same_key_is_refused(verify: Run) -> None:
    entries = entries_of(3)
    note = sign_checkpoint(Checkpoint("other.example", 3, bytes(32)), KEY)
    with serving(site_of(entries) | {"/checkpoint": note.encoded()}) as url:
        assert verify(url) == (1, "BAD: the checkpoint is one of the log 'other.example'\n")


def test_what_cannot_be_read_is_bad(verify: Run, tmp_path: Path) -> None:
    entries = entries_of(300)
    site = site_of(entries)
    with serving({}) as url:
        assert verify(url)[0] == 1
    for path in site:
        with serving({other: body for other, body in site.items() if other != path}) as url:
            assert verify(url)[0] == 1, path
    for text in ("", "{}", "[]", "null", "x", '{"act_export": 2}', '{"act_export": 1, "format": "cloudevents"}'):
        (tmp_path / "e").write_text(text)
        assert verify(tmp_path / "e")[0] == 1, text
    assert verify(tmp_path / "none")[0] == 1
    export = write_export(tmp_path / "e", entries_of(3))
    for key in (f"{VKEY}A", VKEY.replace("+", "+0", 1), VKEY.replace(ORIGIN, "x"), "a+b", "a+b+c"):
        assert verify(export, key=key)[0] == 1, key


@pytest.mark.parametrize("damage", ["]n", "Zn", "=\\n", "-\\n", " \\n"])
def test_p1_a_signature_is_read_to_its_last_character(verify: Run, tmp_path: Path, damage: str) -> None:
    export = write_export(tmp_path / "e", entries_of(2))
    whole = export.read_text()
    head, _, rows = whole.partition("\n")
    end = head.rindex("\\n")
    assert head[end - 1] == "="
    for altered in (head[:end] + damage, head[: end - 2] + next_letter(head[end - 2]) + "=\\n"):
        export.write_text(f"{altered}{head[end + 2 :]}\n{rows}")
        assert verify(export)[0] == 1, altered[end - 10 :]


def next_letter(text: str) -> str:
    """Return what stands for the same bits but the last, which a decoder that is not strict drops."""
    letters = string.ascii_uppercase + string.ascii_lowercase + string.digits + "+/"
    return letters[letters.index(text) ^ 1]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_p1_no_flipped_bit_of_an_export_is_missed(verify: Run, tmp_path: Path, data: st.DataObject) -> None:
    export = write_export(tmp_path / "e", entries_of(6), with_hashes=data.draw(st.booleans()))
    whole = export.read_bytes()
    at = data.draw(st.integers(0, len(whole) - 1))
    altered = whole[:at] + bytes([whole[at] ^ 1 << data.draw(st.integers(0, 7))]) + whole[at + 1 :]
    export.write_bytes(altered)
    code, _ = verify(export)
    assert code == 1 or says_the_same(altered, whole)


def says_the_same(altered: bytes, whole: bytes) -> bool:
    """Tell whether two exports carry the same entries under the same checkpoint: other white space, or an own key."""
    # Where the bytes are no UTF-8, it may be in what nobody asks for.
    pairs = zip(altered.decode(errors="replace").split("\n"), whole.decode().split("\n"), strict=True)
    (head, true_head), *rows = ((json.loads(one), json.loads(two)) for one, two in pairs if two)
    names = ("index", "received_us", "event")
    same_note = head["checkpoint"] == true_head["checkpoint"]
    return same_note and all([one[name] for name in names] == [two[name] for name in names] for one, two in rows)


def test_it_reads_as_a_stream(verify: Run, tmp_path: Path) -> None:
    raw = event("LANE-a", 1, entity="lane", status="paused", lane="a")

    def entries(count: int) -> list[bytes]:
        return [
            entry_bytes(NOW_US, raw.replace(b"00000000000000000001", b"%020d" % seq)) for seq in range(1, count + 1)
        ]

    peaks = []
    for count in (500, 5_000):
        export = write_export(tmp_path / "e", entries(count))
        tracemalloc.start()
        assert verify(export)[0] == 0
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < peaks[0] + 20_000, "bytes: ten times the entries take no more memory"


def test_its_ed25519_is_the_standards() -> None:
    """RFC 8032 section 7.1, tests 1 to 3."""
    for public, message, signature in (
        (
            "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
            "",
            (
                "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e06522490155"
                "5fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b"
            ),
        ),
        (
            "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
            "72",
            (
                "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da"
                "085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00"
            ),
        ),
        (
            "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025",
            "af82",
            (
                "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac"
                "18ff9b538d16f290ae67f760984dc6594a7c15e9716ed28dc027beceea1ec40a"
            ),
        ),
    ):
        parts = tuple(map(bytes.fromhex, (public, message, signature)))
        assert verifier.is_signed(*parts)


@settings(max_examples=40)
@given(st.binary(min_size=32, max_size=32), st.binary(max_size=200), st.data())
def test_its_ed25519_agrees_with_the_library(seed: bytes, message: bytes, data: st.DataObject) -> None:
    private = Ed25519PrivateKey.from_private_bytes(seed)
    public, signature = private.public_key().public_bytes_raw(), private.sign(message)
    assert verifier.is_signed(public, message, signature)
    parts = [public, message + b"x", signature]
    assert not verifier.is_signed(*parts)
    which = data.draw(st.sampled_from([0, 2]))
    at, bit = data.draw(st.integers(0, len(parts[which]) - 1)), data.draw(st.integers(0, 7))
    parts = [public, message, signature]
    parts[which] = parts[which][:at] + bytes([parts[which][at] ^ 1 << bit]) + parts[which][at + 1 :]
    assert not signs(*parts)


def signs(public: bytes, message: bytes, signature: bytes) -> bool:
    try:
        return bool(verifier.is_signed(public, message, signature))
    except ValueError:
        return False


def test_a_point_has_one_form() -> None:
    assert verifier.point_of((1).to_bytes(32, "little")) == (0, 1, 1, 0)
    for number in (verifier.P + 1, 1 | 1 << 255, 2):
        with pytest.raises(ValueError, match="point"):
            verifier.point_of(number.to_bytes(32, "little"))


def test_a_second_form_of_a_signature_is_refused() -> None:
    private = Ed25519PrivateKey.from_private_bytes(bytes(32))
    public, signature = private.public_key().public_bytes_raw(), private.sign(b"x")
    second = int.from_bytes(signature[32:], "little") + verifier.L
    assert not signs(public, b"x", signature[:32] + second.to_bytes(32, "little"))
    assert not signs(public, b"x", signature[:63])
    assert not signs(public, b"x", signature + b"\0")
