"""The auditor's pages in a real Chromium: what the browser checks by itself, and whether everybody can use the pages.

They need a Chromium (``CHROMIUM=/path``, or Debian's ``apt-get install chromium``) and are skipped without one; with
``REQUIRE_BROWSER=1`` they fail instead.
"""

from __future__ import annotations

import base64
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import httpx
import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, Route, expect, sync_playwright

from act.domain.checkpoint import Checkpoint, sign_checkpoint
from act.domain.tlog_proof import TlogProof
from act.keys import Keys, make_keys, read_keys
from tests.act.process import Served
from tests.act.support import array, event, plain_job

CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
HOSTILE = "</pre><script>window.hacked = 1</script><img src=x onerror='window.hacked = 1'>"
JOBS = [raw for number in range(60) for raw in plain_job(f"JOB-{number}")]
"""More than a full tile."""
HOSTILE_AT = len(JOBS)
Scheme = Literal["light", "dark"]

if CHROMIUM is None and os.environ.get("REQUIRE_BROWSER") != "1":
    pytest.skip("there is no Chromium: apt-get install chromium, or name one with CHROMIUM=", allow_module_level=True)


class Site:
    """A running ACT with a ledger in it, and what its operator has: the key."""

    def __init__(self, served: Served, keys: Keys) -> None:
        self.url = served.url
        self.keys = keys

    def append(self, *raws: bytes) -> int:
        """Post the events, wait until a checkpoint covers them, and return the ledger's size."""
        for at in range(0, len(raws), 500):
            answer = httpx.post(f"{self.url}/events", content=array(raws[at : at + 500]))
            assert answer.status_code == 200, answer.text
        size = int(httpx.get(f"{self.url}/readyz").json()["size"])
        for _ in range(2_000):
            if self.checkpoint_size() == size:
                return size
        raise AssertionError("no checkpoint came")

    def checkpoint_size(self) -> int:
        answer = httpx.get(f"{self.url}/checkpoint")
        return int(answer.text.split("\n")[1]) if answer.status_code == 200 else -1

    def signed(self, size: int, root: bytes) -> str:
        """Return what the operator, who has the key, can sign: any tree."""
        note = sign_checkpoint(Checkpoint(self.keys.origin, size, root), self.keys.signing)
        return note.encoded().decode()


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("act")
    with Served(folder, env={"ACT_LOG_NAME": "log.example/act"}) as served:
        site = Site(served, read_keys(folder / "act.db.key"))
        site.append(*JOBS, event("JOB-X", reference=HOSTILE, worker=HOSTILE, detail={"note": HOSTILE}))
        fork = httpx.post(f"{site.url}/events", content=event("JOB-0", 1, reference=HOSTILE))
        assert fork.status_code == 409, "the first page shows what was refused"
        yield site


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    assert CHROMIUM is not None, "REQUIRE_BROWSER=1, and there is no Chromium: apt-get install chromium"
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield launched
        launched.close()


@contextmanager
def visitor(
    browser: Browser, site: Site, *, scheme: Scheme = "light", scripts: bool = True, width: int = 1000
) -> Iterator[Page]:
    """Open a fresh browser profile; at its end nothing may have run, been loaded or been refused that should not."""
    context = browser.new_context(
        base_url=site.url,
        color_scheme=scheme,
        java_script_enabled=scripts,
        viewport={"width": width, "height": 800},
        reduced_motion="reduce",
    )
    page = context.new_page()
    page.set_default_timeout(15_000)
    asked: list[str] = []
    errors: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("console", lambda message: errors.append(message.text) if "Content Security" in message.text else None)
    try:
        yield page
    finally:
        context.close()
    assert [url for url in asked if not url.startswith(f"{site.url}/")] == [], "asked somebody else"
    assert errors == []


@pytest.fixture
def page(browser: Browser, site: Site) -> Iterator[Page]:
    with visitor(browser, site) as page:
        yield page


def check(page: Page) -> None:
    page.locator("#check").get_by_role("button").click()


def result(page: Page) -> str:
    """Wait for the check's end; return what it says."""
    expect(page.locator("#result .outcome")).to_be_visible()
    return page.locator("#result").inner_text()


def flip(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


@pytest.mark.parametrize("index", [0, 1, 255, 256, HOSTILE_AT - 1, HOSTILE_AT])
def test_the_browser_finds_a_good_entry_good(page: Page, site: Site, index: int) -> None:
    page.goto(f"/ledger/entries/{index}")
    check(page)
    said = result(page)
    assert f"OK. Entry {index} is in the ledger, at this place and with these bytes." in said
    for step in ("leaf hash", "leads to the root", "what this page shows is what the proven bytes say", "is signed by"):
        assert step in said
    assert "Not checked" not in said
    assert page.evaluate("window.hacked") is None


ALTERED = [
    ("entry", "leads to"),
    ("path", "leads to"),
    ("short path", "too short"),
    ("long path", "too long"),
    ("index", "the proof is of entry 78"),
    ("signature", "the signature by log.example/act is wrong"),
    ("signer", "not signed by a key that was given"),
    ("root", "leads to"),
]


@pytest.mark.parametrize(("what", "says"), ALTERED)
def test_the_browser_finds_an_altered_proof_bad(page: Page, what: str, says: str) -> None:
    def alter(route: Route) -> None:
        proof = TlogProof.parse(route.fetch().body())
        assert proof.extra is not None
        path, note, extra, index = list(proof.path), proof.checkpoint, proof.extra, proof.index
        text, _, signatures = note.rpartition(b"\n\n")
        name, _, value = signatures.strip().rpartition(b" ")
        if what == "entry":
            extra = extra.replace(b"JOB-15", b"JOB-16")
        elif what == "path":
            path[3] = flip(path[3], 0)
        elif what == "short path":
            path = path[:-1]
        elif what == "long path":
            path += path[:1]
        elif what == "index":
            index += 1
        elif what == "signature":
            signature = flip(base64.b64decode(value), 40)
            note = text + b"\n\n" + name + b" " + base64.b64encode(signature) + b"\n"
        elif what == "signer":
            signature = flip(base64.b64decode(value), 0)
            note = text + b"\n\n" + name + b" " + base64.b64encode(signature) + b"\n"
        elif what == "root":
            lines = note.split(b"\n")
            lines[2] = base64.b64encode(flip(base64.b64decode(lines[2]), 5))
            note = b"\n".join(lines)
        route.fulfill(body=TlogProof(index, tuple(path), note, extra).encoded())

    page.route("**/proof/inclusion*", alter)
    page.goto("/ledger/entries/77")
    check(page)
    said = result(page)
    assert "FAILED." in said
    assert says in said
    assert "OK" not in said


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ('<dd data-says="data.lane">ai_extract</dd>', '<dd data-says="data.lane">printing</dd>', "the entry says"),
        ("&#34;w-1&#34;", "&#34;w-2&#34;", "another event"),
        ('<code id="leaf">', '<code id="leaf">0', "another leaf hash"),
    ],
)
def test_the_browser_finds_a_page_bad_that_shows_something_else(page: Page, old: str, new: str, says: str) -> None:
    def alter(route: Route) -> None:
        answer = route.fetch()
        assert old in answer.text()
        route.fulfill(response=answer, body=answer.text().replace(old, new))

    page.route("**/ledger/entries/*", alter)
    page.goto("/ledger/entries/77")
    check(page)
    said = result(page)
    assert "FAILED." in said
    assert says in said


def test_no_answer_is_neither_good_nor_bad(page: Page) -> None:
    page.goto("/ledger/entries/77")
    page.route("**/proof/inclusion*", lambda route: route.abort())
    check(page)
    assert "NOT CHECKED. Nothing is known" in result(page)
    page.unroute("**/proof/inclusion*")
    page.route("**/proof/inclusion*", lambda route: route.fulfill(status=503, body="busy"))
    check(page)
    expect(page.locator("#result")).to_contain_text("it answered 503")
    expect(page.locator("#result")).to_contain_text("NOT CHECKED.")
    page.get_by_label("Verifier key").fill("log.example/act+00000000+AAAA")
    page.unroute("**/proof/inclusion*")
    check(page)
    expect(page.locator("#result")).to_contain_text("the verifier key: ")
    expect(page.locator("#result")).to_contain_text("NOT CHECKED.")


def test_a_browser_without_ed25519_says_that_the_signature_was_not_checked(page: Page) -> None:
    page.add_init_script(
        "SubtleCrypto.prototype.importKey = async () => { throw new DOMException('no', 'NotSupportedError'); };"
    )
    page.goto("/ledger/entries/77")
    check(page)
    said = result(page)
    assert "OK, but the signature was not checked." in said
    assert "this browser has no Ed25519" in said


def test_a_page_without_webcrypto_says_how_to_check(page: Page) -> None:
    page.add_init_script("Object.defineProperty(Crypto.prototype, 'subtle', { get: () => undefined });")
    page.goto("/ledger/entries/77")
    expect(page.locator("#result")).to_contain_text("Open this page over HTTPS, or use act verify-proof")
    expect(page.locator("#check")).to_be_hidden()


def test_since_the_last_visit_the_ledger_only_grew(page: Page, site: Site) -> None:
    page.goto("/ledger")
    expect(page.locator("#kept")).to_be_hidden()
    expect(page.locator("#no-script")).to_be_hidden()
    check(page)
    assert "OK. This is the first check in this browser" in result(page)
    size = site.checkpoint_size()
    expect(page.locator("#kept-when")).to_contain_text(f"{size} entries")
    page.reload()
    check(page)
    assert f"the {size} entries of the checkpoint kept on" in result(page)
    grown = site.append(*plain_job(f"JOB-{size}"))
    page.reload()
    check(page)
    said = result(page)
    assert "OK. The ledger only grew since your last check." in said
    assert f"are the first of now {grown}, unchanged" in said
    expect(page.locator("#kept-when")).to_contain_text(f"{grown} entries")
    page.goto("/ledger/entries/0")
    check(page)
    assert f"the {grown} entries of the checkpoint kept on" in result(page), "an entry is held against it, too"
    page.goto("/ledger")
    page.get_by_role("button", name="Forget this checkpoint").click()
    expect(page.locator("#kept")).to_be_hidden()
    check(page)
    assert "This is the first check in this browser" in result(page)


@pytest.mark.parametrize(
    ("what", "says"),
    [
        ("shrunk", "the ledger shrank: it had"),
        ("rewritten", "the ledger was rewritten: two checkpoints"),
        ("rewritten and longer", "ACT gave no proof: No checkpoint of"),
        ("altered proof", "the ledger was rewritten, or the proof was altered"),
        ("another log", "this is the log other.example, and was log.example/act"),
    ],
)
def test_a_ledger_that_was_rewritten_is_found_although_its_operator_signs_it(
    page: Page, site: Site, what: str, says: str
) -> None:
    page.goto("/ledger")
    check(page)
    assert "OK." in result(page)
    kept = page.locator("#kept-note").inner_text()
    size = site.checkpoint_size()
    shown = {
        "shrunk": site.signed(size - 1, bytes(32)),
        "rewritten": site.signed(size, bytes(32)),
        "rewritten and longer": site.signed(size + 7, bytes(32)),
        "another log": kept.replace("log.example/act", "other.example"),
    }
    if what == "altered proof":
        site.append(*plain_job(f"JOB-{size}"))

        def alter(route: Route) -> None:
            old, first, rest = route.fetch().body().split(b"\n", 2)
            first = base64.b64encode(flip(base64.b64decode(first), 9))
            route.fulfill(body=b"\n".join([old, first, rest]))

        page.route("**/proof/consistency*", alter)
    else:
        page.route("**/checkpoint", lambda route: route.fulfill(body=shown[what]))
    check(page)
    expect(page.locator("#result")).to_contain_text("FAILED.")
    said = result(page)
    assert says in said
    assert kept.split("\n")[2] in said, "both checkpoints are shown: they are the evidence"
    assert page.locator("#kept-note").inner_text() == kept, "the good one is kept"
    page.reload()
    check(page)
    expect(page.locator("#result")).to_contain_text("FAILED.")


def test_after_a_change_of_keys_the_new_one_must_be_given(page: Page, site: Site, tmp_path: Path) -> None:
    page.goto("/ledger")
    check(page)
    assert "OK." in result(page)
    new = make_keys(tmp_path / "new.key", name=site.keys.origin)
    _, size, root, *_ = page.locator("#kept-note").inner_text().split("\n")
    note = sign_checkpoint(Checkpoint(new.origin, int(size), base64.b64decode(root)), new.signing).encoded()
    page.route("**/checkpoint", lambda route: route.fulfill(body=note.decode()))
    page.reload()
    check(page)
    assert "not signed by a key that was given" in result(page)
    keys = page.get_by_label("Verifier key")
    keys.fill(f"{keys.input_value()}\n{new.verifiers[0]}")
    check(page)
    assert "OK. The ledger only grew" in result(page)
    page.reload()
    assert str(new.verifiers[0]) in page.get_by_label("Verifier key").input_value(), "kept with the checkpoint"


PAGES = ["/ledger", "/ledger?job=JOB-X", "/ledger?job=JOB-404", "/ledger/entries/77", f"/ledger/entries/{HOSTILE_AT}"]
PAGES += ["/ledger/entries/99999", "/ledger?x=1"]


def violations(page: Page) -> list[str]:
    found = Axe().run(page).response["violations"]
    return [f"{one['id']}: {node['target']} {node['html'][:200]}" for one in found for node in one["nodes"]]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_on_any_page(browser: Browser, site: Site, scheme: Scheme) -> None:
    with visitor(browser, site, scheme=scheme) as page:
        for path in PAGES:
            page.goto(path)
            assert violations(page) == [], path
            if page.locator("#check").is_visible():
                check(page)
                result(page)
                assert violations(page) == [], f"{path}, checked"
        page.goto("/ledger/entries/77")
        page.route("**/proof/inclusion*", lambda route: route.fulfill(body="no proof"))
        check(page)
        assert "FAILED." in result(page)
        assert violations(page) == [], "a failed check"


def test_axe_would_find_something(page: Page) -> None:
    page.goto("/ledger")
    page.evaluate("document.querySelector('label').remove()")
    assert any(found.startswith("label") for found in violations(page))


def test_the_pages_fit_a_small_screen(browser: Browser, site: Site) -> None:
    with visitor(browser, site, width=320) as page:
        for path in PAGES:
            page.goto(path)
            if page.locator("#check").is_visible():
                check(page)
                result(page)
            assert page.evaluate("document.documentElement.scrollWidth") <= 320, path
            for button in page.get_by_role("button").all():
                box = button.bounding_box()
                assert box is None or min(box["width"], box["height"]) >= 24, path


def test_the_keyboard_is_enough(page: Page) -> None:
    page.goto("/ledger/entries/77")
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to the content")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator("#main")).to_be_focused()
    button = page.get_by_role("button", name="Check this entry")
    for _ in range(20):
        page.keyboard.press("Tab")
        if button.evaluate("element => element === document.activeElement"):
            break
    page.keyboard.press("Enter")
    assert "OK." in result(page)
    expect(button).to_be_focused()
    assert page.locator("#result").get_attribute("role") == "status", "a screen reader says it, the focus stays"


def test_everything_can_be_read_without_scripts(browser: Browser, site: Site) -> None:
    with visitor(browser, site, scripts=False) as page:
        page.goto("/ledger")
        expect(page.get_by_text("Your browser runs no scripts here")).to_be_visible()
        expect(page.locator("#check")).to_be_hidden()
        page.get_by_label("Job, such as JOB-1").fill("JOB-15")
        page.get_by_role("button", name="Show its events").click()
        page.get_by_role("link", name="77", exact=True).click()
        expect(page.get_by_role("heading", name="Entry 77")).to_be_visible()
        expect(page.locator("#raw")).to_contain_text('"job_id":"JOB-15"')
        with page.expect_download() as download:
            page.get_by_role("link", name="Download the proof").click()
        proof = TlogProof.parse(Path(download.value.path()).read_bytes())
        assert proof.index == 77
        page.goto("/ledger")
        page.get_by_label("Entry, a number").fill("3")
        page.get_by_role("button", name="Show the entry").click()
        expect(page.get_by_role("heading", name="Entry 3")).to_be_visible()
