"""Random plans of all six blocks that really run: their expressions can be decided on `INPUT`, but for a few."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

INPUT: dict[str, Any] = {
    "yes": True,
    "no": False,
    "none": [],
    "one": ["x"],
    "three": ["x", "y", "z"],
    "number": 7,
    "soon": "2025-11-22T14:06:00Z",
    "past": "2020-01-01T00:00:00Z",
}
"""What every job of such a plan is given."""
SIGNALS = ("answered", "paid")
CHILD: dict[str, Any] = {"id": "child", "lanes": ["a"], "sequence": ["a"], "retry_policy": {"attempts": 1}}
"""The plan that is a step of the random ones."""
MOST_STEPS = 3


class _Maker:
    """Draws one document; every activity and block with a name has one of its own."""

    def __init__(self, draw: st.DrawFn, *, most_depth: int, attempts: int) -> None:
        self._draw = draw
        self._most_depth = most_depth
        self._attempts = attempts
        self._number = 0

    def document(self, name: str) -> dict[str, Any]:
        return {
            "id": name,
            "lanes": ["a", "b"],
            "sequence": self.steps(0, undo=False),
            "retry_policy": {"attempts": self._attempts, "backoff_sec": 5},
        }

    def steps(self, depth: int, *, undo: bool) -> list[Any]:
        count = self.pick(1, 1, 2, 2, MOST_STEPS)
        return [self.entry(depth, undo=undo) for _ in range(count)]

    def entry(self, depth: int, *, undo: bool) -> dict[str, Any]:
        kinds = ["activity", "activity", "activity", "wait", "plan"]
        if depth < self._most_depth:
            kinds += ["parallel", "parallel", "for_each", "repeat", "choose"]
        kind = self.pick(*kinds)
        entry: dict[str, Any] = getattr(self, f"_{kind}")(depth, undo=undo)
        when = self.pick(None, None, None, None, None, "input.yes", "input.no", "input.missing")
        return entry if when is None else {**entry, "when": when}

    def pick(self, *of: Any) -> Any:
        return self._draw(st.sampled_from(of))

    def name(self, kind: str) -> str:
        self._number += 1
        return f"{kind}{self._number}"

    def _activity(self, depth: int, *, undo: bool) -> dict[str, Any]:
        entry: dict[str, Any] = {"activity": self.name("act"), "lane": self.pick("a", "b")}
        failure = self.pick(None, None, None, "pause", "continue")
        if failure is not None:
            entry["on_failure"] = failure
        if self.pick(*[False] * 9, True):
            entry["input"] = {"x": "input.missing"}
        if not undo and self.pick(*[False] * 4, True):
            entry["undo"] = self.steps(max(depth, self._most_depth - 1), undo=True)
        return entry

    def _wait(self, _depth: int, *, undo: bool) -> dict[str, Any]:
        del undo
        wait = self.pick(
            {"for_sec": 30},
            {"until": "timestamp(input.soon)"},
            {"until": "timestamp(input.past)"},
            {"signal": SIGNALS[0]},
            {"signal": SIGNALS[1], "timeout_sec": 60},
            {"signal": SIGNALS[0], "timeout_sec": 60, "on_timeout": "continue"},
        )
        return {"wait": wait, **self._id("wait")}

    def _plan(self, _depth: int, *, undo: bool) -> dict[str, Any]:
        del undo
        return {"plan": self.pick("child", "child", "child", "child", "nobody_has"), **self._id("plan")}

    def _parallel(self, depth: int, *, undo: bool) -> dict[str, Any]:
        branches = {
            name: self.steps(depth + 1, undo=undo)
            for name in self.pick(("x",), ("x", "y"), ("x", "y"), ("x", "y", "z"))
        }
        join = self.pick("all", "all", "any", len(branches), max(len(branches) - 1, 1))
        return {"parallel": branches, "join": join}

    def _for_each(self, depth: int, *, undo: bool) -> dict[str, Any]:
        most = self.pick(None, None, 1, 2)
        return {
            "for_each": f"input.{self.pick('none', 'one', 'three', 'three', 'three', 'number')}",
            "as": f"item{depth}",
            "do": self.steps(depth + 1, undo=undo),
            **({} if most is None else {"max_parallel": most}),
            **self._id("each"),
        }

    def _repeat(self, depth: int, *, undo: bool) -> dict[str, Any]:
        steps = self.steps(depth + 1, undo=undo)
        decides = self.name("act")
        until = self.pick(f"has(outputs.{decides}.good)", f"has(outputs.{decides}.good)", "input.missing")
        steps.append({"activity": decides, "lane": "a"})
        return {"repeat": steps, "until": until, "max_rounds": self.pick(1, 2, 3)}

    def _choose(self, depth: int, *, undo: bool) -> dict[str, Any]:
        options: list[dict[str, Any]] = [
            {"when": self.pick("input.yes", "input.no"), "do": self.steps(depth + 1, undo=undo)}
        ]
        if self.pick(True, False):
            options.append({"else": self.steps(depth + 1, undo=undo)})
        return {"choose": options}

    def _id(self, kind: str) -> dict[str, str]:
        return {"id": self.name(kind)} if self.pick(True, False) else {}


@st.composite
def random_plans(draw: st.DrawFn, *, name: str = "random", most_depth: int = 4, attempts: int = 1) -> dict[str, Any]:
    """Draw a plan document whose blocks nest to ``most_depth``."""
    return _Maker(draw, most_depth=most_depth, attempts=attempts).document(name)
