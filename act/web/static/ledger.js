// What the buttons of the auditor's pages do. Without this script the pages show everything and check nothing.

import * as proofs from "./proofs.js";

const ROOT = new URL("../../", import.meta.url);
const KEPT = "act-ledger-checkpoint";
const $ = (id) => document.getElementById(id);

/** Return the checkpoint that this browser kept, with the keys it was checked with; null where it kept none. */
function readKept() {
  const text = localStorage.getItem(KEPT);
  if (text === null) return null;
  try {
    const { note, keys, at } = JSON.parse(text);
    return { checkpoint: proofs.readCheckpoint(note), keys: String(keys), at: String(at) };
  } catch (error) {
    throw new proofs.Unknown(`what this browser kept cannot be read (${error.message}): forget it, and begin anew`);
  }
}

/** Return the answer's text. A refusal says in its `detail` why. */
async function get(path) {
  let answer;
  let text;
  try {
    answer = await fetch(new URL(path, ROOT), { cache: "no-store" });
    text = await answer.text();
  } catch (error) {
    throw new proofs.Unknown(`ACT did not answer: ${error.message}`);
  }
  if (answer.ok) return text;
  let detail = `it answered ${answer.status}`;
  try {
    detail = JSON.parse(text).detail ?? detail;
  } catch {
    // a proxy's page: the status says it
  }
  // An overloaded or stopping server says nothing about the ledger; one that refuses a proof does.
  const kind = [429, 502, 503, 504].includes(answer.status) ? proofs.Unknown : proofs.Failure;
  throw new kind(`ACT gave no proof: ${detail}`);
}

/** Add an element with text, which is never read as HTML. */
function add(parent, name, text, kind) {
  const element = document.createElement(name);
  element.textContent = text;
  if (kind !== undefined) element.className = kind;
  parent.append(element);
  return element;
}

/** The steps of one check, each with its result, and what they come to. */
class Report {
  steps = [];
  isSigned = true;
  evidence = [];

  passed(text) {
    this.steps.push(`Passed: ${text}`);
  }

  notChecked(text) {
    this.isSigned = false;
    this.steps.push(`Not checked: ${text}`);
  }

  show(error, good) {
    let [kind, word, sentence] = ["good", "OK.", good];
    if (!this.isSigned) [kind, word, sentence] = ["warn", "OK, but the signature was not checked.", good];
    if (error instanceof proofs.Failure) {
      [kind, word, sentence] = ["bad", "FAILED.", "This is not as it must be. Keep a copy of this page, and tell the auditor and the operator."];
    } else if (error !== null) {
      [kind, word, sentence] = ["warn", "NOT CHECKED.", "Nothing is known, neither good nor bad."];
    }
    if (error !== null) this.steps.push(`${kind === "bad" ? "Failed" : "Not checked"}: ${error.message}`);
    const outcome = document.createElement("div");
    outcome.className = `outcome ${kind}`;
    const line = add(outcome, "p", "");
    add(line, "strong", word);
    line.append(` ${sentence}`);
    const list = add(outcome, "ol", "");
    for (const step of this.steps) add(list, "li", step);
    if (error instanceof proofs.Failure) {
      for (const [title, text] of this.evidence) {
        add(outcome, "p", title);
        add(outcome, "pre", text);
      }
    }
    $("result").replaceChildren(outcome);
  }
}

async function checkSignature(report, checkpoint, keys) {
  if (await proofs.checkSignature(checkpoint, keys)) {
    report.passed(`the checkpoint of ${checkpoint.size} entries is signed by ${checkpoint.origin}`);
  } else {
    report.notChecked("this browser has no Ed25519; act verify-proof and act witness check the signature");
  }
}

/** Check that the checkpoint goes on from the kept one. */
async function checkGrowth(report, kept, checkpoint) {
  const old = kept.checkpoint;
  report.evidence.push([`The checkpoint that this browser kept on ${kept.at}:`, old.note]);
  report.evidence.push(["The checkpoint that ACT shows now:", checkpoint.note]);
  if (old.origin !== checkpoint.origin) throw new proofs.Failure(`this is the log ${checkpoint.origin}, and was ${old.origin}`);
  let growth = [];
  if (old.size > 0 && old.size < checkpoint.size) {
    growth = proofs.readGrowth(await get(`proof/consistency?from=${old.size}&to=${checkpoint.size}`), old.size);
  }
  await proofs.checkConsistency(old, checkpoint, growth);
  const entries = old.size === checkpoint.size ? "the same" : `the first of now ${checkpoint.size}`;
  report.passed(`the ${old.size} entries of the checkpoint kept on ${kept.at} are ${entries}, unchanged`);
}

async function checkVisit(report, keys) {
  const kept = readKept();
  const checkpoint = proofs.readCheckpoint(await get("checkpoint"));
  if (kept !== null) await checkGrowth(report, kept, checkpoint);
  await checkSignature(report, checkpoint, keys);
  localStorage.setItem(KEPT, JSON.stringify({ note: checkpoint.note, keys, at: new Date().toISOString() }));
  showKept();
  if (kept === null) return "This is the first check in this browser: it now keeps this checkpoint, and compares at your next visit.";
  return "The ledger only grew since your last check. Your browser now keeps the new checkpoint.";
}

/** Compare what the page shows with the bytes that were proven. */
async function checkPage(report, entry) {
  const { receivedUs, event } = proofs.readEntry(entry);
  if ($("raw").textContent !== event) throw new proofs.Failure("this page shows another event than the one that was proven");
  if ($("leaf").textContent !== proofs.hex(await proofs.leafHash(entry))) throw new proofs.Failure("this page shows another leaf hash");
  const facts = JSON.parse(event);
  for (const element of document.querySelectorAll("[data-says]")) {
    const path = element.dataset.says;
    const value = path === "received"
      ? new Date(Math.floor(receivedUs / 1000)).toISOString()
      : path.split(".").reduce((object, name) => object?.[name], facts);
    if (element.textContent !== String(value)) throw new proofs.Failure(`this page shows “${element.textContent}”, and the entry says “${value}” (${path})`);
  }
  report.passed("what this page shows is what the proven bytes say");
}

async function checkEntry(report, keys) {
  const index = Number($("entry").dataset.index);
  const proof = proofs.readProof(await get(`proof/inclusion?index=${index}`));
  if (proof.index !== index) throw new proofs.Failure(`the proof is of entry ${proof.index}, not of ${index}`);
  const leaf = await proofs.leafHash(proof.entry);
  report.passed(`the entry's ${proof.entry.length} bytes have the leaf hash ${proofs.hex(leaf)}`);
  const { checkpoint } = proof;
  await proofs.checkInclusion(leaf, index, checkpoint.size, checkpoint.root, proof.path);
  report.passed(`its path of ${proof.path.length} hashes leads to the root ${proofs.hex(checkpoint.root)} over ${checkpoint.size} entries`);
  await checkPage(report, proof.entry);
  await checkSignature(report, checkpoint, keys);
  const kept = readKept();
  if (kept !== null) await checkGrowth(report, kept, checkpoint);
  return `Entry ${index} is in the ledger, at this place and with these bytes.`;
}

/** Show what this browser keeps, on the page that has a place for it. */
function showKept() {
  if ($("kept") === null) return;
  try {
    const kept = readKept();
    $("kept").hidden = kept === null;
    if (kept === null) return;
    $("kept-when").textContent = `Kept on ${kept.at}: ${kept.checkpoint.size} entries. Copy it to a place of your own: a browser may lose it.`;
    $("kept-note").textContent = kept.checkpoint.note;
  } catch (error) {
    $("kept").hidden = false;
    $("kept-when").textContent = error.message;
  }
}

function start() {
  const form = $("check");
  if (form === null) return; // nothing to check here
  $("no-script").hidden = true;
  const check = $("entry") === null ? checkVisit : checkEntry;
  const button = form.querySelector("button");
  if (!proofs.canHash()) {
    add($("result"), "p", "Your browser checks only on pages that came over HTTPS or from this machine. Open this page over HTTPS, or use act verify-proof and act witness.");
    return;
  }
  try {
    $("keys").value = readKept()?.keys ?? $("keys").value;
  } catch {
    // shown where what is kept is shown, and by the check itself
  }
  form.hidden = false;
  showKept();
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    if (button.getAttribute("aria-disabled") === "true") return;
    button.setAttribute("aria-disabled", "true"); // not `disabled`: that would take the focus away
    $("result").textContent = "Checking …";
    const report = new Report();
    try {
      const good = await check(report, $("keys").value);
      report.show(null, good);
    } catch (error) {
      report.show(error, "");
    }
    button.removeAttribute("aria-disabled");
  });
  $("forget")?.addEventListener("click", () => {
    localStorage.removeItem(KEPT);
    showKept();
    $("result").textContent = "Forgotten. The next check is a first one.";
    button.focus();
  });
}

start();
