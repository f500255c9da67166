"""Check a ledger of ACT without ACT: an export or a running ACT, with nothing but the log's verifier key.

    python verify_without_us.py --key 'act.example.gov+1a2b3c4d+AbC...' export.jsonl
    python verify_without_us.py --key log.vkey --held checkpoint-of-last-year https://act.example.gov

It hashes every entry, builds the tree of RFC 6962, compares its root with the signed checkpoint, and checks that each
source's events are there without a gap; over HTTP every tile, too. Its memory grows with the sources, not the entries.
"""

import argparse
import hashlib
import json
import sys
import urllib.request
from base64 import b64decode, b64encode
from pathlib import Path

Point = tuple[int, int, int, int]
HASH, TILE = 32, 256  # the bytes of a hash, the hashes of a full tile


def need(holds: bool, otherwise: str) -> None:
    if not holds:
        raise ValueError(otherwise)


# Ed25519 (RFC 8032), on the curve -x^2 + y^2 = 1 + D x^2 y^2 modulo P. Slow, and run for one signature only.
P, L = 2**255 - 19, 2**252 + 27742317777372353535851937790883648493
D, ROOT_OF_MINUS_1 = -121665 * pow(121666, -1, P) % P, pow(2, (P - 1) // 4, P)


def add(a: Point, b: Point) -> Point:
    p, q, r, s = (a[1] - a[0]) * (b[1] - b[0]), (a[1] + a[0]) * (b[1] + b[0]), 2 * D * a[3] * b[3], 2 * a[2] * b[2]
    e, f, g, h = q - p, s - r, s + r, q + p
    return e * f % P, g * h % P, f * g % P, e * h % P


def times(factor: int, point: Point) -> Point:
    product = (0, 1, 1, 0)
    while factor:
        product = add(product, point) if factor & 1 else product
        point, factor = add(point, point), factor >> 1
    return product


def point_of(data: bytes) -> Point:
    number = int.from_bytes(data, "little")
    is_odd, y = number >> 255, number & ((1 << 255) - 1)
    square = (y * y - 1) * pow(D * y * y + 1, -1, P) % P
    x = pow(square, (P + 3) // 8, P)
    x = x if x * x % P == square else x * ROOT_OF_MINUS_1 % P
    need(y < P and x * x % P == square and not (x == 0 and is_odd), "the key or the signature is no point")
    x = x if x & 1 == is_odd else P - x
    return x, y, 1, x * y % P


BASE = point_of((4 * pow(5, -1, P) % P).to_bytes(32, "little"))


def is_signed(public: bytes, message: bytes, signature: bytes) -> bool:
    r, s = signature[:32], int.from_bytes(signature[32:], "little")
    need(len(signature) == 2 * HASH and s < L, "the signature is malformed")
    k = int.from_bytes(hashlib.sha512(r + public + message).digest(), "little") % L
    a, b = times(s, BASE), add(point_of(r), times(k, point_of(public)))
    return (a[0] * b[2] - b[0] * a[2]) % P == 0 and (a[1] * b[2] - b[1] * a[2]) % P == 0


def open_checkpoint(note: str, vkey: str) -> tuple[int, bytes]:
    """Return what the log has signed (C2SP signed-note and tlog-checkpoint)."""
    name, key_id, encoded = vkey.split("+", 2)
    key = b64decode(encoded, validate=True)
    computed = hashlib.sha256(name.encode() + b"\n" + key).digest()[:4]
    need(key[:1] == b"\x01" and len(key) == 1 + HASH and computed.hex() == key_id, "the verifier key is damaged")
    text, _, lines = note.rpartition("\n\n")
    values = [line.split(" ", 2)[2] for line in lines.split("\n") if line.startswith(f"\N{EM DASH} {name} ")]
    need(all(b64encode(b64decode(value)).decode() == value for value in values), "a signature is no base64")
    own = [it[4:] for it in map(b64decode, values) if it[:4] == computed]  # other keys are for others
    valid = [is_signed(key[1:], f"{text}\n".encode(), signature) for signature in own]
    need(bool(valid) and all(valid), f"the checkpoint is not signed by {vkey}")
    origin, size, root = text.split("\n")[:3]
    need(origin == name, f"the checkpoint is one of the log {origin!r}")
    return int(size), b64decode(root)


class Ledger:
    """Takes one entry after the other. The tree is kept as the roots of the perfect subtrees it is made of."""

    def __init__(self, held: tuple[int, bytes] | None) -> None:
        self.size, self.held, self.peaks, self.heads = 0, held, list[bytes](), dict[str, int]()
        self.tiles: dict[int, list[bytes]] | None = None  # of each level the hashes since its last full tile

    def take(self, entry: bytes, leaf_hash: bytes = b"") -> None:
        """Add the next entry, and compare its hash with the one that stands beside it, if one does."""
        nodes, index = [hashlib.sha256(b"\x00" + entry).digest()], self.size
        if leaf_hash and nodes[0] != leaf_hash:
            raise ValueError(f"entry {index}: its bytes are not those of the hash beside it")
        try:
            version, _, raw = entry.split(b"\n", 2)
            event = json.loads(raw)
            source, sequence = str(event["source"]), int(event["sequence"])
        except (ValueError, KeyError, TypeError):
            version = b""
        if version != b"act-entry/v1":
            raise ValueError(f"entry {index}: it is no entry of ACT")
        if sequence != self.heads.get(source, 0) + 1:
            raise ValueError(f"entry {index}: {sequence} of {source} follows its {self.heads.get(source, 0)}")
        self.heads[source] = sequence
        while index & 1:
            nodes.append(hashlib.sha256(b"\x01" + self.peaks.pop() + nodes[-1]).digest())
            index >>= 1
        self.peaks.append(nodes[-1])
        if self.tiles is not None:
            for level, node in enumerate(nodes[::8]):
                self.tiles.setdefault(level, []).append(node)
        self.size += 1
        if self.held and self.held[0] == self.size and self.held[1] != self.root():
            raise ValueError(f"the first {self.size} entries were changed since the checkpoint you held")

    def root(self) -> bytes:
        """Return the root over all entries so far."""
        root = self.peaks[-1] if self.peaks else hashlib.sha256(b"").digest()
        for peak in self.peaks[-2::-1]:
            root = hashlib.sha256(b"\x01" + peak + root).digest()
        return root


def read_export(path: str, ledger: Ledger, vkey: str) -> tuple[int, bytes]:
    with Path(path).open(encoding="utf-8", errors="surrogateescape", newline="\n") as lines:
        head = json.loads(next(lines, "{}"))
        need(head.get("act_export") == 1 and head.get("format") == "cloudevents", "it is no export of cloudevents")
        size, root = open_checkpoint(head["checkpoint"], vkey)
        for line in lines:
            try:
                row = json.loads(line)
                index, leaf_hash = row["index"], bytes.fromhex(row.get("leaf_hash", ""))
                entry = b"act-entry/v1\n%d\n%b" % (row["received_us"], row["event"].encode())
            except (ValueError, KeyError, TypeError, AttributeError):
                raise ValueError(f"entry {ledger.size}: its line cannot be read") from None
            if index != ledger.size or index >= size:
                raise ValueError(f"entry {ledger.size}: in its place stands {index!r}, and {size} were signed")
            ledger.take(entry, leaf_hash)
    return size, root


def read_tiles(url: str, ledger: Ledger, vkey: str) -> tuple[int, bytes]:
    size, root = open_checkpoint(fetch(f"{url}/checkpoint").decode(), vkey)
    ledger.tiles = {}
    while ledger.size < size:
        width, at = min(TILE, size - ledger.size), 0
        bundle = fetch(tile_url(url, "entries", ledger.size // TILE, width))
        for _ in range(width):
            start, at = at + 2, at + 2 + int.from_bytes(bundle[at : at + 2], "big")
            need(at <= len(bundle), f"entry {ledger.size}: its bundle ends before it")
            ledger.take(bundle[start:at])
        for level, hashes in ledger.tiles.items():
            if len(hashes) == TILE or (hashes and ledger.size == size):
                first = (ledger.size >> 8 * level) - len(hashes)
                tile = fetch(tile_url(url, str(level), first // TILE, len(hashes)))
                for number, node in enumerate(hashes):
                    same = tile[number * HASH : (number + 1) * HASH] == node
                    need(same, f"entry {first + number << 8 * level}: tile/{level} has another hash for it")
                hashes.clear()
    return size, root


def tile_url(url: str, level: str, number: int, width: int) -> str:
    *groups, last = (group.zfill(3) for group in f"{number:,}".split(","))
    path = "".join(f"x{group}/" for group in groups) + last
    return f"{url}/tile/{level}/{path}" + (f".p/{width}" if width < TILE else "")


def fetch(url: str) -> bytes:
    with urllib.request.urlopen(url, timeout=60) as answer:  # noqa: S310 - http or https: see main
        return bytes(answer.read())


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", help="an export (JSON lines, format=cloudevents), or ACT's URL")
    parser.add_argument("--key", required=True, help="the log's verifier key, or a file that holds it")
    parser.add_argument("--held", type=Path, help="a checkpoint you kept earlier: the ledger must go on from it")
    given = parser.parse_args()
    try:
        vkey = given.key if "+" in given.key else Path(given.key).read_text().strip()
        ledger = Ledger(open_checkpoint(given.held.read_text(), vkey) if given.held else None)
        read = read_tiles if given.source.startswith(("http://", "https://")) else read_export
        size, root = read(given.source.rstrip("/"), ledger, vkey)
        need(ledger.size == size, f"entry {ledger.size}: it is missing, and {size} were signed")
        need(ledger.root() == root, f"the root of the {size} entries is not the one that was signed, {root.hex()}")
        need(not ledger.held or ledger.held[0] <= size, f"entry {size}: it is missing, and in the checkpoint you held")
    except (OSError, ValueError, KeyError, AttributeError) as error:
        print(f"BAD: {error}")
        return 1
    print(f"size {size}\nroot {root.hex()}\nOK")
    return 0


if __name__ == "__main__":
    sys.exit(main())
