// The arithmetic of the checks: RFC 6962 trees, and C2SP's signed-note, tlog-checkpoint and tlog-proof. It draws nothing
// and asks nobody: bytes and text in, a result or an error out. SHA-256 and Ed25519 are the browser's own (WebCrypto).

/** What was to be shown is not so: the evidence fails. */
export class Failure extends Error {}

/** It could not be found out; nothing is known. */
export class Unknown extends Error {}

const HASH_BYTES = 32;
const ED25519 = 1;
const ID_BYTES = 4;
const MAX_PATH = 63;
const EMPTY_ROOT = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
const utf8 = new TextEncoder();

export const canHash = () => globalThis.crypto?.subtle !== undefined;

export const hex = (bytes) => Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");

const isEqual = (one, other) => hex(one) === hex(other);

const joined = (...parts) => {
  const whole = new Uint8Array(parts.reduce((length, part) => length + part.length, 0));
  let at = 0;
  for (const part of parts) {
    whole.set(part, at);
    at += part.length;
  }
  return whole;
};

const sha256 = async (...parts) => new Uint8Array(await crypto.subtle.digest("SHA-256", joined(...parts)));

export const leafHash = (entry) => sha256([0], entry);

const nodeHash = (left, right) => sha256([1], left, right);

/** Return the bytes; unlike `atob`, refuse what is not exactly how they are written. */
function base64(text, length) {
  let chars;
  try {
    chars = atob(text);
  } catch {
    throw new Failure(`“${text.slice(0, 80)}” is no base64`);
  }
  if (btoa(chars) !== text) throw new Failure(`“${text.slice(0, 80)}” is not how base64 is written`);
  const bytes = Uint8Array.from(chars, (char) => char.charCodeAt(0));
  if (length !== undefined && bytes.length !== length) {
    throw new Failure(`“${text.slice(0, 80)}” has ${bytes.length} bytes instead of ${length}`);
  }
  return bytes;
}

/** Return a size or an index. Beyond 2^53 a number of JavaScript would be another one. */
function decimal(text) {
  if (!/^(0|[1-9][0-9]*)$/.test(text) || !Number.isSafeInteger(Number(text))) {
    throw new Failure(`“${text.slice(0, 80)}” is no size or index`);
  }
  return Number(text);
}

const half = (number) => Math.floor(number / 2);
const isOdd = (number) => number % 2 === 1;

/** Check that the leaf is number `index` of the tree (RFC 9162, section 2.1.3.2). */
export async function checkInclusion(leaf, index, size, root, path) {
  if (index >= size) throw new Failure(`a tree of ${size} entries has no entry ${index}`);
  let place = index;
  let last = size - 1;
  let hash = leaf;
  for (const sibling of path) {
    if (last === 0) throw new Failure("the path is too long for its tree");
    if (isOdd(place) || place === last) {
      hash = await nodeHash(sibling, hash);
      while (!isOdd(place) && place > 0) [place, last] = [half(place), half(last)];
    } else {
      hash = await nodeHash(hash, sibling);
    }
    [place, last] = [half(place), half(last)];
  }
  if (last !== 0) throw new Failure("the path is too short for its tree");
  if (!isEqual(hash, root)) {
    throw new Failure(`the path leads to ${hex(hash)}, not to the checkpoint's root: the entry is not in this tree at this place`);
  }
}

/** Check that the old tree is how the new one begins (RFC 9162, section 2.1.4.2). Each has `size` and `root`. */
export async function checkConsistency(old, now, proof) {
  if (now.size < old.size) throw new Failure(`the ledger shrank: it had ${old.size} entries and now has ${now.size}`);
  if (old.size === 0 && hex(old.root) !== EMPTY_ROOT) throw new Failure("the root of no entries is another one");
  if (old.size === 0 || old.size === now.size) {
    if (proof.length > 0) throw new Failure("there is nothing to prove, and the proof is not empty");
    if (old.size === now.size && !isEqual(old.root, now.root)) {
      throw new Failure(`the ledger was rewritten: two checkpoints of ${now.size} entries have different roots`);
    }
    return;
  }
  let place = old.size - 1;
  let last = now.size - 1;
  while (isOdd(place)) [place, last] = [half(place), half(last)];
  const path = place === 0 ? [old.root, ...proof] : [...proof];
  if (path.length === 0) throw new Failure("the proof is empty");
  let oldHash = path[0];
  let newHash = path[0];
  for (const sibling of path.slice(1)) {
    if (last === 0) throw new Failure("the proof is too long for its trees");
    if (isOdd(place) || place === last) {
      oldHash = await nodeHash(sibling, oldHash);
      newHash = await nodeHash(sibling, newHash);
      while (!isOdd(place) && place > 0) [place, last] = [half(place), half(last)];
    } else {
      newHash = await nodeHash(newHash, sibling);
    }
    [place, last] = [half(place), half(last)];
  }
  if (last !== 0) throw new Failure("the proof is too short for its trees");
  if (!isEqual(oldHash, old.root) || !isEqual(newHash, now.root)) {
    throw new Failure(`the ledger was rewritten, or the proof was altered: the ${now.size} entries do not begin with the ${old.size} of before`);
  }
}

/** Return what a checkpoint says, its signatures not yet checked. */
export function readCheckpoint(note) {
  const cut = note.lastIndexOf("\n\n");
  if (cut < 0 || !note.endsWith("\n")) throw new Failure("this is no signed checkpoint");
  const text = note.slice(0, cut + 1);
  const signatures = note.slice(cut + 2, -1).split("\n").map((line) => {
    const parts = /^— (\S+) (\S+)$/.exec(line);
    if (parts === null) throw new Failure(`“${line.slice(0, 80)}” is no signature`);
    return { name: parts[1], value: base64(parts[2]) };
  });
  const [origin, size, root] = text.split("\n");
  if (!origin || root === undefined) throw new Failure("a checkpoint is three lines: the log's name, the size, the root");
  return { note, text, signatures, origin, size: decimal(size), root: base64(root, HASH_BYTES) };
}

/** Return a verifier key, `<name>+<key id>+<base64>`. */
async function readKey(text) {
  const parts = /^([^+\s]+)\+([0-9a-f]{8})\+(\S+)$/.exec(text);
  if (parts === null) throw new Unknown(`“${text.slice(0, 80)}” is no verifier key: one reads <name>+<key id>+<base64>`);
  let value;
  try {
    value = base64(parts[3], 1 + HASH_BYTES);
  } catch (error) {
    throw new Unknown(`the verifier key: ${error.message}`);
  }
  const id = (await sha256(utf8.encode(`${parts[1]}\n`), value)).subarray(0, ID_BYTES);
  if (value[0] !== ED25519 || hex(id) !== parts[2]) throw new Unknown(`the verifier key of ${parts[1]} is damaged, or of another kind`);
  return { name: parts[1], id, bytes: value.subarray(1) };
}

/** Return the key as WebCrypto has it; null where this browser has no Ed25519. */
async function imported(key) {
  try {
    return await crypto.subtle.importKey("raw", key.bytes, { name: "Ed25519" }, false, ["verify"]);
  } catch (error) {
    if (error.name === "NotSupportedError") return null;
    throw new Unknown(`the verifier key of ${key.name} cannot be used: ${error.message}`);
  }
}

/** Check that one of the keys (text, one a line) has signed; false where this browser has no Ed25519. */
export async function checkSignature(checkpoint, keys) {
  const known = await Promise.all(keys.split(/\s+/).filter(Boolean).map(readKey));
  if (known.length === 0) throw new Unknown("no verifier key was given");
  let isSigned = false;
  for (const { name, value } of checkpoint.signatures) {
    const key = known.find((one) => one.name === name && isEqual(one.id, value.subarray(0, ID_BYTES)));
    if (key === undefined) continue; // of a witness, or of a key that is not trusted here
    const usable = await imported(key);
    if (usable === null) return false;
    if (!(await crypto.subtle.verify("Ed25519", usable, value.subarray(ID_BYTES), utf8.encode(checkpoint.text)))) {
      throw new Failure(`the signature by ${name} is wrong`);
    }
    isSigned ||= name === checkpoint.origin;
  }
  if (!isSigned) throw new Failure("the checkpoint is not signed by a key that was given");
  return true;
}

/** Return head lines and checkpoint of a file that has both, an empty line between them. */
function split(text) {
  const cut = text.indexOf("\n\n");
  if (cut < 0) throw new Failure("the proof ends too early");
  return [text.slice(0, cut).split("\n"), readCheckpoint(text.slice(cut + 2))];
}

function hashes(lines) {
  if (lines.length > MAX_PATH) throw new Failure(`a proof has ${MAX_PATH} hashes at most`);
  return lines.map((line) => base64(line, HASH_BYTES));
}

/** Return what a proof file by ACT says: the entry, its index, the path and the checkpoint. Nothing is checked yet. */
export function readProof(text) {
  const [[first, extra, index, ...path], checkpoint] = split(text);
  if (first !== "c2sp.org/tlog-proof@v1") throw new Failure("this is no proof file");
  if (!extra?.startsWith("extra ") || !index?.startsWith("index ")) throw new Failure("the proof file does not hold the entry and its index");
  return { entry: base64(extra.slice(6)), index: decimal(index.slice(6)), path: hashes(path), checkpoint };
}

/** Return the hashes of a proof between two checkpoints (the body of a witness's add-checkpoint). */
export function readGrowth(text, from) {
  const [[old, ...proof]] = split(text);
  if (old !== `old ${from}`) throw new Failure(`the proof is not one from ${from} entries on`);
  return hashes(proof);
}

/** Return an entry's time of receipt (microseconds since the epoch) and the event's text, to the byte. */
export function readEntry(entry) {
  const text = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(entry);
  const parts = /^act-entry\/v1\n([0-9]+)\n/.exec(text);
  if (parts === null) throw new Failure("the entry is not one of an ACT ledger");
  return { receivedUs: Number(parts[1]), event: text.slice(parts[0].length) };
}
