"""Plans come into force and go out of it while the service runs, and no job notices."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from oms.domain.errors import NotFoundError
from oms.domain.plan_reader import parse_plan
from oms.sequencer.load_plans import LoadedPlans, LoadPlans, load_plans
from oms.sequencer.plan_folder import reload_folder
from oms.storage.plans import in_force
from oms.storage.store import Store
from tests.oms.support import RENEWAL, SINGLE, Running, Site, Tower, event_rows, in_loop, running, working

ONE = "id: one\nlanes: [a, b]\nsequence: [a, b]\n"
ONE_CHANGED = "id: one\nlanes: [a, b]\nsequence: [b, a]\n"
ONE_BROKEN = "id: one\nlanes: [a, b]\nsequence: [a, c]\n"
TWO = "id: two\nlanes: [a]\nsequence: [a]\n"
BLOCKS = """\
id: blocks
lanes: [a, b]
sequence:
  - parallel:
      left: [{activity: left, lane: a}]
      right: [{activity: right, lane: b}]
  - {id: pages, for_each: input.pages, as: page, max_parallel: 1, do: [{activity: scan, lane: a, input: {page: page}}]}
  - {repeat: [{activity: draft, lane: a}], until: outputs.draft.good, max_rounds: 3}
  - choose:
      - {when: outputs.draft.good, do: [{id: answer, wait: {signal: answered, timeout_sec: 600, on_timeout: fail}}]}
  - {activity: end, lane: b, when: outputs.answer.yes && outputs.pages.size() == 2}
"""


class Folder:
    """A plan folder, and the service that reads it."""

    def __init__(self, oms: Running, path: Path) -> None:
        self.oms = oms
        self.path = path

    def write(self, **files: str) -> None:
        for name, text in files.items():
            (self.path / f"{name}.yaml").write_text(text)

    async def reload(self) -> tuple[list[tuple[str, int]], list[str], list[str]]:
        """Read the folder again; return what was loaded, the files that were refused, and what was withdrawn."""
        answer = await self.oms.post("/plans/reload", {})
        return (
            [(plan["id"], plan["plan_version"]) for plan in answer["loaded"]],
            [fault["file"] for fault in answer["refused"]],
            answer["withdrawn"],
        )

    def in_force(self) -> dict[str, int]:
        return _in_force(self.oms.store)


def _in_force(store: Store) -> dict[str, int]:
    with store.reading() as connection:
        return in_force(connection)


@in_loop
async def test_the_folder_is_read_on_start_and_again_when_it_is_asked_for(site: Site) -> None:
    (site.folder / "plans").mkdir()
    (site.folder / "plans" / "one.yaml").write_text(ONE)
    async with running(site, plans=()) as oms:
        folder = Folder(oms, site.folder / "plans")
        assert folder.in_force() == {"one": 1}
        folder.write(two=TWO)
        assert await folder.reload() == ([("one", 1), ("two", 1)], [], [])
        assert folder.in_force() == {"one": 1, "two": 1}


@in_loop
async def test_a_changed_file_is_a_new_version_and_the_same_content_is_the_same_one(site: Site) -> None:
    async with running(site, plans=()) as oms:
        folder = Folder(oms, site.folder / "plans")
        for text, version in (
            (ONE, 1),
            (ONE, 1),
            ("# a note\nsequence:  [ 'a', \"b\" ]\n\nid: one\nlanes:\n- a\n- b\n", 1),
            (ONE_CHANGED, 2),
            (ONE, 1),
            (ONE_CHANGED, 2),
            (TWO.replace("two", "one"), 3),
        ):
            folder.write(one=text)
            assert (await folder.reload())[0] == [("one", version)]
            assert (await oms.get("/plans/one"))["plan_version"] == version


@in_loop
async def test_a_job_runs_to_its_end_on_the_version_that_it_started_with(site: Site) -> None:
    async with running(site, plans=()) as oms:
        folder = Folder(oms, site.folder / "plans")
        folder.write(one=ONE)
        await folder.reload()
        old = await oms.post("/start", {"plan": "one", "reference": "T-1"})
        folder.write(one=ONE_CHANGED)
        await folder.reload()
        new = await oms.post("/start", {"plan": "one", "reference": "T-2"})
        assert (old["plan_version"], new["plan_version"]) == (1, 2)
        again = await oms.post("/start", {"plan": "one", "reference": "T-1"})
        assert (again["plan_version"], again["created"]) == (1, False)
        (folder.path / "one.yaml").unlink()
        assert await folder.reload() == ([], [], ["one"])
        for lane in ("a", "b", "a", "b"):
            for task in await oms.get("/pull", lane=lane, max=5):
                await oms.post("/complete", {"task_id": task["task_id"], "token": task["token"]})
        for name, activities in (("JOB-1", ["a", "b"]), ("JOB-2", ["b", "a"])):
            job = await oms.get(f"/jobs/{name}")
            assert (job["state"], [task["activity"] for task in job["tasks"]]) == ("done", activities)


@in_loop
async def test_a_job_goes_on_with_its_version_after_a_restart_too(site: Site) -> None:
    async with running(site, plans=()) as oms:
        folder = Folder(oms, site.folder / "plans")
        folder.write(one=ONE)
        await folder.reload()
        await oms.post("/start", {"plan": "one", "reference": "T-1"})
        (folder.path / "one.yaml").unlink()
    async with running(site, plans=()) as oms:
        assert _in_force(oms.store) == {}
        task = await oms.get("/pull", lane="a")
        await oms.post("/complete", {"task_id": task["task_id"], "token": task["token"]})
        assert (await oms.get("/pull", lane="b"))["activity"] == "b"


@in_loop
async def test_a_plan_whose_file_is_gone_starts_no_more_jobs(site: Site) -> None:
    async with running(site, plans=()) as oms:
        folder = Folder(oms, site.folder / "plans")
        folder.write(one=ONE, two=TWO)
        await folder.reload()
        (folder.path / "one.yaml").unlink()
        assert await folder.reload() == ([("two", 1)], [], ["one"])
        answer = await oms.http.post("/start", json={"plan": "one", "reference": "T-1"})
        assert answer.status_code == 404
        assert (await oms.get("/plans/one"))["plan_version"] is None
        assert [plan["id"] for plan in (await oms.get("/plans"))["items"]] == ["one", "two"]
        folder.write(one=ONE)
        assert (await folder.reload())[0] == [("one", 1), ("two", 1)]


@in_loop
async def test_a_job_amid_its_blocks_goes_on_to_its_end_at_a_service_that_never_saw_its_file(site: Site) -> None:
    plans = site.folder / "plans"
    plans.mkdir()
    (plans / "blocks.yaml").write_text(BLOCKS)
    (plans / "two.yaml").write_text(TWO)
    did: list[str] = []

    async def work(oms: Running, lane: str, output: dict[str, Any] | None = None) -> None:
        task = await oms.get("/pull", lane=lane)
        did.append(task["activity"])
        wish = {"task_id": task["task_id"], "token": task["token"], "output": output or {}}
        await oms.post("/complete", wish)

    async with running(site, plans=()) as oms:
        job_id = (await oms.post("/start", {"plan": "blocks", "reference": "T-1", "input": {"pages": [1, 2]}}))[
            "job_id"
        ]
        await work(oms, "a")
    (plans / "blocks.yaml").unlink()
    for rest in (["b", "a"], ["a", "a"], ["a"]):  # amid the branches, amid the items, amid the rounds
        async with running(site, plans=()) as oms:
            assert (await oms.http.post("/start", json={"plan": "blocks", "reference": "T-2"})).status_code == 404
            for lane in rest:
                await work(oms, lane, {"good": len(did) > 4})
    async with running(site, plans=()) as oms:
        assert (await oms.get(f"/jobs/{job_id}"))["state"] == "running"
        await oms.post(f"/jobs/{job_id}/signal", {"name": "answered", "data": {"yes": True}})
        await work(oms, "b")
        job = await oms.get(f"/jobs/{job_id}")
    assert did == ["left", "right", "scan", "scan", "draft", "draft", "end"]
    assert (job["state"], job["blocks"], job["plan_version"]) == ("done", [], 1)


@in_loop
async def test_a_broken_file_leaves_its_last_good_version_in_force_and_the_others_load(site: Site) -> None:
    async with running(site, plans=()) as oms:
        folder = Folder(oms, site.folder / "plans")
        folder.write(one=ONE, two=TWO)
        await folder.reload()
        folder.write(one=ONE_BROKEN, two=TWO.replace("[a]\nseq", "[a, b]\nseq"))
        answer = await oms.post("/plans/reload", {})
        assert answer["loaded"] == [{"id": "two", "plan_version": 2}]
        (fault,) = answer["refused"]
        assert (fault["file"], fault["line"], fault["column"]) == ("one.yaml", 3, 15)
        assert '"c"' in fault["detail"]
        assert folder.in_force() == {"one": 1, "two": 2}
        assert (await oms.post("/start", {"plan": "one", "reference": "T-1"}))["plan_version"] == 1


@pytest.mark.parametrize("text", [ONE_BROKEN, "id: one\nlanes: [\n", "\x00", "id: one\n" + "# more\n" * 20_000])
@in_loop
async def test_a_file_that_is_broken_and_has_a_new_name_leaves_the_last_good_version_in_force(
    site: Site, text: str
) -> None:
    async with running(site, plans=()) as oms:
        folder = Folder(oms, site.folder / "plans")
        folder.write(one=ONE)
        await folder.reload()
        folder.write(one=text)
        assert await folder.reload() == ([], ["one.yaml"], [])
        assert folder.in_force() == {"one": 1}


@in_loop
async def test_a_file_that_was_renamed_and_broken_leaves_the_last_good_version_in_force(site: Site) -> None:
    async with running(site, plans=()) as oms:
        folder = Folder(oms, site.folder / "plans")
        folder.write(one=ONE)
        await folder.reload()
        (folder.path / "one.yaml").unlink()
        folder.write(uno=ONE_BROKEN)
        assert await folder.reload() == ([], ["uno.yaml"], [])
        assert folder.in_force() == {"one": 1}


@in_loop
async def test_a_file_that_gets_a_new_name_is_the_same_plan(site: Site) -> None:
    async with running(site, plans=()) as oms:
        folder = Folder(oms, site.folder / "plans")
        folder.write(one=ONE)
        await folder.reload()
        (folder.path / "one.yaml").rename(folder.path / "uno.yaml")
        assert await folder.reload() == ([("one", 1)], [], [])
        assert (await oms.get("/plans/one"))["file"] == "uno.yaml"


@in_loop
async def test_a_file_that_holds_another_plan_now_takes_the_old_one_out_of_force(site: Site) -> None:
    async with running(site, plans=()) as oms:
        folder = Folder(oms, site.folder / "plans")
        folder.write(one=ONE)
        await folder.reload()
        folder.write(one=TWO)
        assert await folder.reload() == ([("two", 1)], [], ["one"])
        assert folder.in_force() == {"two": 1}


@in_loop
async def test_a_folder_that_cannot_be_read_takes_no_plan_out_of_force(site: Site) -> None:
    """A mount that has gone for a moment must not stop every start."""
    async with running(site, plans=()) as oms:
        folder = Folder(oms, site.folder / "plans")
        folder.write(one=ONE)
        await folder.reload()
        folder.path.rename(site.folder / "elsewhere")
        loaded, refused, withdrawn = await folder.reload()
        assert (loaded, withdrawn) == ([], [])
        assert len(refused) == 1
        assert folder.in_force() == {"one": 1}


@in_loop
async def test_a_plan_that_came_by_http_is_in_force_without_a_file_and_stays_so(site: Site) -> None:
    async with running(site, plans=()) as oms:
        folder = Folder(oms, site.folder / "plans")
        folder.write(one=ONE)
        await folder.reload()
        answer = await oms.http.post("/plans", content=TWO)
        assert answer.json() == {"id": "two", "plan_version": 1}
        assert (
            await oms.http.post("/plans", json=json.loads('{"id":"two","lanes":["a"],"sequence":["a"]}'))
        ).json() == {
            "id": "two",
            "plan_version": 1,
        }
        assert await folder.reload() == ([("one", 1)], [], [])
        assert folder.in_force() == {"one": 1, "two": 1}
        assert (await oms.get("/plans/two"))["file"] is None


CALLS = "id: {}\nlanes: [a]\nsequence:\n  - a\n  - {{plan: {}}}\n"


@in_loop
async def test_a_plan_that_closes_a_circle_of_calls_is_refused_and_its_last_good_version_stays(site: Site) -> None:
    async with running(site, plans=()) as oms:
        folder = Folder(oms, site.folder / "plans")
        folder.write(one=ONE, two=CALLS.format("two", "one"))
        assert await folder.reload() == ([("one", 1), ("two", 1)], [], [])
        folder.write(one=CALLS.format("one", "two"))
        answer = await oms.post("/plans/reload", {})
        detail = 'the plans call each other in a circle, so that a job would never end: "one" -> "two" -> "one"'
        assert answer["refused"] == [{"file": "one.yaml", "line": 5, "column": 12, "detail": detail}]
        assert folder.in_force() == {"one": 1, "two": 1}


@in_loop
async def test_a_plan_by_http_that_closes_a_circle_is_refused(site: Site) -> None:
    async with running(site, plans=()) as oms:
        assert (await oms.http.post("/plans", content=CALLS.format("one", "two"))).status_code == 200, (
            "two may come later"
        )
        refused = await oms.http.post("/plans", content=CALLS.format("two", "one"))
        assert refused.status_code == 422
        assert '"two" -> "one" -> "two"' in refused.json()["detail"]
        folder = Folder(oms, site.folder / "plans")
        folder.write(two=CALLS.format("two", "three"))
        assert await folder.reload() == ([("two", 1)], [], [])
        folder.write(three=CALLS.format("three", "one"))
        assert await folder.reload() == ([("two", 1)], ["three.yaml"], []), "it closes the circle"
        assert (await oms.http.post("/plans", content=CALLS.format("three", "one"))).status_code == 422
        assert folder.in_force() == {"one": 1, "two": 1}
        assert (await oms.http.post("/plans", content=TWO.replace("two", "one"))).status_code == 200
        assert (await folder.reload())[1] == []


@in_loop
async def test_a_reload_that_our_database_does_not_take_changes_nothing(site: Site) -> None:
    async with running(site, plans=()) as oms:
        folder = Folder(oms, site.folder / "plans")
        folder.write(one=ONE)
        with site.database.away():
            answer = await oms.http.post("/plans/reload")
        assert answer.status_code == 503
        assert folder.in_force() == {}
        assert (await folder.reload())[0] == [("one", 1)]


@in_loop
async def test_a_reload_beside_work_takes_the_version_of_one_moment(tower: Tower, tmp_path: Path) -> None:
    async with working(tower) as writer:
        (tmp_path / "one.yaml").write_text(ONE)
        report = await reload_folder(writer, tmp_path)
    assert report["loaded"] == [{"id": "one", "plan_version": 1}]
    assert report["withdrawn"] == [], "what came by HTTP stays"


def test_at_most_one_version_of_a_plan_is_in_force(tower: Tower) -> None:
    for attempts in (1, 2, 3, 1, 2):
        tower.put_plan({**SINGLE, "retry_policy": {"attempts": attempts}})
    with tower.store.reading() as connection:
        rows = connection.exec_driver_sql("SELECT version, in_force FROM plans WHERE plan = 'single' ORDER BY 1").all()
    assert [tuple(row) for row in rows] == [(1, 0), (2, 0), (3, 1), (4, 0)]


def test_a_plan_that_is_withdrawn_and_put_in_force_in_one_reload_is_in_force(tower: Tower) -> None:
    def load(**files: dict[str, Any]) -> LoadedPlans:
        return tower.one(load_plans, LoadPlans([(file, parse_plan(document)) for file, document in files.items()]))

    load(a=SINGLE, b=RENEWAL)
    loaded = load(b=SINGLE)
    assert (loaded.withdrawn, [plan.id for plan in loaded.loaded]) == (["renewal"], ["single"])
    assert tower.start("single").plan_version == 1
    with pytest.raises(NotFoundError):
        tower.start("renewal")
    before = event_rows(tower.store)
    load(b=SINGLE)
    assert event_rows(tower.store) == before
