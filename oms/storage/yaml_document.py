"""A YAML or JSON text as plain values, each with its line and column.

PyYAML reads the text into events, which carry exact places; the values are made here, by stricter rules than its own
loaders have:

- Words are text. Only ``null``, ``~`` and JSON's numbers are anything else; ``true`` and ``false`` are booleans only in
  places of data, such as ``output_schema``. ``NO``, ``on``, ``012``, ``12:30:45`` and ``2026-11-22`` are what they
  look like.
- Anchors, aliases, tags, directives, a second document and a key given twice are refused: aliases multiply, tags make
  objects, and of two equal keys the last would win silently.
- At most 64 KiB and 100 levels.

JSON is read the same way, tabs included, which YAML does not allow between its tokens.
"""

from __future__ import annotations

import math
import re
from bisect import bisect_right
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

import yaml

from oms.domain.naming import quote
from oms.domain.plan_reader import is_data

if TYPE_CHECKING:
    from collections.abc import Iterable

Path: TypeAlias = tuple[str | int, ...]

MAX_BYTES = 64 * 1024
MAX_DEPTH = 100

_NUMBER = re.compile(r"[-+]?(?:0|[1-9][0-9]*|(?=\.[0-9]))(\.[0-9]*)?([eE][-+]?[0-9]+)?")
_FORBIDDEN = re.compile("[^\t\n\r\x20-\x7e\xa0-\u2027\u202a-\ud7ff\ue000-\ufefe\uff00-\ufffd\U00010000-\U0010ffff]")
_TAB_OUTSIDE_TEXT = re.compile(r'("(?:[^"\\]|\\.)*")|\t', re.DOTALL)
_ESCAPE = re.compile(r"\\(?:u[dD][89abAB]\w\w\\u[dD][c-fC-F]\w\w|x[0-9a-fA-F]{2}|u[0-9a-fA-F]{4}|U[0-9a-fA-F]{8}|.)")
_TO_TEXT = "; a text that starts with {} is put in quotes"
_SURROGATES = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class TextFault:
    """What is wrong with a text: where, line and column counted from 1, and a sentence."""

    line: int
    column: int
    detail: str


class DocumentError(ValueError):
    """The text is no document. ``faults`` has at least one, in the order of the text."""

    def __init__(self, faults: Iterable[TextFault]) -> None:
        self.faults = tuple(faults)
        super().__init__("; ".join(fault.detail for fault in self.faults))


@dataclass(slots=True)
class Positions:
    """Where each value of a document stands in its text."""

    text: str
    values: dict[Path, tuple[int, int, str | None]] = field(default_factory=dict)
    """By path: first and last character of the value, and a text's quotes (None for anything but a text)."""
    keys: dict[Path, int] = field(default_factory=dict)
    """By path: the first character of the key."""
    _lines: list[int] = field(init=False)

    def __post_init__(self) -> None:
        self._lines = [0, *(match.end() for match in re.finditer(r"\r\n|\r|\n", self.text))]

    def at(self, index: int) -> tuple[int, int]:
        """Return the line and column, both from 1, of a character of the text."""
        index = max(0, min(index, len(self.text)))
        line = bisect_right(self._lines, index)
        return line, index - self._lines[line - 1] + 1

    def of(self, path: Path, *, on_key: bool = False, offset: int = 0) -> tuple[int, int]:
        """Return the line and column of a value, or of its key, or of the nearest value around a missing one.

        Args:
            path: keys and indexes from the top.
            on_key: the place of the key instead.
            offset: characters into the value. Exact for a text on one line, else ignored.
        """
        if on_key and path in self.keys:
            return self.at(self.keys[path])
        while path and path not in self.values:
            path, offset = path[:-1], 0
        if path not in self.values:
            return 1, 1
        start, end, quotes = self.values[path]
        if quotes is not None and offset and "\n" not in self.text[start:end] and "\r" not in self.text[start:end]:
            start += _raw_offset(self.text[start:end], quotes, offset)
        return self.at(start)


def load_document(text: str) -> tuple[dict[str, Any], Positions]:
    """Return the mapping that a text holds, and where each of its values stands.

    Raises:
        DocumentError: with every fault that does not hide the rest of the text.
    """
    document, positions, faults = compose(text)
    if faults or document is None:
        raise DocumentError(faults)
    return document, positions


def compose(text: str) -> tuple[dict[str, Any] | None, Positions, list[TextFault]]:
    """Do the same without raising: what could be read despite the faults helps to find more of them.

    The document is None when the text cannot be read to its end, or is no mapping.
    """
    text = text.removeprefix("\ufeff")
    positions = Positions(text)
    if len(text.encode(errors="replace")) > MAX_BYTES:
        return None, positions, [TextFault(1, 1, f"the file is larger than {MAX_BYTES // 1024} KiB")]
    forbidden = _FORBIDDEN.search(text)
    if forbidden:
        detail = f"the control character {forbidden.group()!a} is not allowed; write it as an escape in quotes"
        return None, positions, [TextFault(*positions.at(forbidden.start()), detail)]
    composer = _Composer(positions)
    parser = yaml.SafeLoader(_without_tabs(text))
    try:
        while parser.check_event():
            composer.take(parser.get_event())  # type: ignore[no-untyped-call]
    except _StopError:
        pass
    except yaml.MarkedYAMLError as error:
        composer.fault(_index(error.problem_mark or error.context_mark), _yaml_problem(error))
    except (yaml.YAMLError, ValueError, OverflowError, IndexError) as error:
        # For example the escape \UFFFFFFFF: PyYAML passes on what chr() raises, without a place.
        composer.fault(parser.index, f"not valid YAML before this place: {error}")
    else:
        return composer.mapping(), positions, composer.faults
    return None, positions, composer.faults


def _without_tabs(text: str) -> str:
    """Replace the tabs between the tokens of a JSON text by blanks. No place changes: a tab is one column, too."""
    if "\t" not in text or not text.lstrip().startswith("{"):
        return text
    return _TAB_OUTSIDE_TEXT.sub(lambda match: match[1] or " ", text)


class _StopError(Exception):
    """Nothing after this point can be trusted."""


@dataclass(slots=True)
class _Frame:
    """A list or mapping that is being read. A key that is no text stands as a number, and its value is dropped."""

    container: dict[str, Any] | list[Any]
    path: Path
    is_data: bool
    key: str | int = -1
    wants_value: bool = False


class _Composer:
    """Makes values of PyYAML's events, without recursion, and collects faults."""

    def __init__(self, positions: Positions) -> None:
        self._positions = positions
        self._frames: list[_Frame] = []
        self._documents = 0
        self._top: Any = None
        self.faults: list[TextFault] = []
        self.last = 0

    def fault(self, index: int, detail: str) -> None:
        self.faults.append(TextFault(*self._positions.at(index), detail))

    def mapping(self) -> dict[str, Any] | None:
        """Return the whole document, and note a fault when it is no mapping."""
        if isinstance(self._top, dict):
            return self._top
        if not self.faults:
            found = "nothing" if self._top is None else "a list" if isinstance(self._top, list) else "a single value"
            self.faults.append(TextFault(1, 1, f"a plan is a mapping (id, lanes, sequence); found {found}"))
        return None

    def take(self, event: yaml.Event) -> None:
        """Take the parser's next event.

        Raises:
            _StopError: the rest cannot be trusted; the fault is noted.
        """
        self.last = _index(event.start_mark)
        match event:
            case yaml.DocumentStartEvent():
                self._start_document(event)
            case yaml.AliasEvent():
                self.fault(self.last, f"aliases are not allowed: *{event.anchor}{_TO_TEXT.format('*')}")
                self._place(None, event)
            case yaml.MappingStartEvent():
                self._open({}, event)
            case yaml.SequenceStartEvent():
                self._open([], event)
            case yaml.ScalarEvent():
                self._refuse_properties(event)
                self._scalar(event)
            case yaml.MappingEndEvent() | yaml.SequenceEndEvent():
                self._close(event)

    def _start_document(self, event: yaml.DocumentStartEvent) -> None:
        self._documents += 1
        if self._documents > 1:
            self.fault(self.last, "a second document starts here; a file holds one plan")
            raise _StopError
        if event.version or event.tags:
            self.fault(0, "directives (%YAML, %TAG) are not allowed")

    def _refuse_properties(self, event: yaml.ScalarEvent | yaml.CollectionStartEvent) -> None:
        if event.anchor is not None:
            self.fault(self.last, f"anchors are not allowed: &{event.anchor}{_TO_TEXT.format('&')}")
        if event.tag is not None:
            tag = event.tag.replace("tag:yaml.org,2002:", "!!")
            self.fault(self.last, f"tags are not allowed: {quote(tag)}{_TO_TEXT.format('!')}")

    def _open(self, container: dict[str, Any] | list[Any], event: yaml.CollectionStartEvent) -> None:
        self._refuse_properties(event)
        if len(self._frames) >= MAX_DEPTH:
            self.fault(self.last, f"nested deeper than {MAX_DEPTH} levels")
            raise _StopError
        path, holds_data = self._next_place()
        if self._frames and isinstance(self._frames[-1].container, dict) and not self._frames[-1].wants_value:
            self.fault(self.last, "a key is a text; found a list or a mapping")
        self._positions.values.setdefault(path, (self.last, _index(event.end_mark), None))
        self._frames.append(_Frame(container, path, holds_data))

    def _close(self, event: yaml.Event) -> None:
        frame = self._frames.pop()
        start = self._positions.values[frame.path][0]
        self._positions.values[frame.path] = (start, _index(event.end_mark), None)
        self._put(frame.container)

    def _scalar(self, event: yaml.ScalarEvent) -> None:
        frame = self._frames[-1] if self._frames else None
        if frame is not None and isinstance(frame.container, dict) and not frame.wants_value:
            self._key(frame, event)
            return
        holds_data = self._next_place()[1]
        try:
            value = _text(event.value) if event.style else _plain(event.value, is_data=holds_data)
        except ValueError as error:
            self.fault(self.last, str(error))
            value = None
        self._place(value, event)

    def _key(self, frame: _Frame, event: yaml.ScalarEvent) -> None:
        """Take a scalar as a mapping's key."""
        key: str | int = -1
        try:
            key = _text(event.value)
            if not event.style and not isinstance(_plain(key, is_data=False), str):
                raise ValueError(f"a key is a text; found {quote(key) if key else 'nothing'}; put it in quotes")
            if isinstance(frame.container, dict) and key in frame.container:
                raise ValueError(f"the key {quote(key)} is given twice")
        except ValueError as error:
            self.fault(self.last, str(error))
            key = -1
        frame.key, frame.wants_value = key, True
        self._positions.keys[(*frame.path, key)] = self.last

    def _next_place(self) -> tuple[Path, bool]:
        """Return the path of the value that comes next, and whether it is data."""
        if not self._frames:
            return (), False
        frame = self._frames[-1]
        if isinstance(frame.container, list):
            return (*frame.path, len(frame.container)), frame.is_data
        path = (*frame.path, frame.key)
        return path, frame.is_data or is_data(path)

    def _place(self, value: object, event: yaml.Event) -> None:
        """Put a value that is complete, and note where it stands."""
        path, _ = self._next_place()
        quotes = (event.style or "") if isinstance(event, yaml.ScalarEvent) and isinstance(value, str) else None
        self._positions.values.setdefault(path, (self.last, _index(event.end_mark), quotes))
        self._put(value)

    def _put(self, value: object) -> None:
        if not self._frames:
            self._top = value
            return
        frame = self._frames[-1]
        if isinstance(frame.container, list):
            frame.container.append(value)
        elif not frame.wants_value:
            frame.key, frame.wants_value = -1, True
        else:
            if isinstance(frame.key, str):
                frame.container[frame.key] = value
            frame.key, frame.wants_value = -1, False


def _plain(word: str, *, is_data: bool) -> str | int | float | bool | None:
    """Return the value of a word without quotes.

    Raises:
        ValueError: a number too large to be kept exactly, or half of a character.
    """
    if word in ("", "~", "null"):
        return None
    if is_data and word in ("true", "false"):
        return word == "true"
    number = _NUMBER.fullmatch(word)
    if number is None:
        return _text(word)
    if number[1] is None and number[2] is None:
        if len(word) > 20 or not -(2**63) <= int(word) < 2**63:  # noqa: PLR2004 - no 64-bit number has more digits
            raise ValueError("the number has more than 64 bits; put it in quotes")
        return int(word)
    value = float(word)
    if not math.isfinite(value):
        raise ValueError("the number is too large; put it in quotes")
    return value


def _text(text: str) -> str:
    r"""Return a text with the halves that JSON writes for one character (``\ud83d\ude00``) joined.

    Raises:
        ValueError: a half stands alone.
    """
    if not _SURROGATES.search(text):
        return text
    try:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le")
    except UnicodeDecodeError:
        raise ValueError("the text holds half of a character (a lone surrogate)") from None


def _raw_offset(raw: str, quotes: str, offset: int) -> int:
    """Return where the character at ``offset`` of a one-line text stands in it as written, with quotes and escapes."""
    if quotes not in ("'", '"'):
        return min(offset, len(raw)) if not quotes else 0
    at = 1
    for _ in range(offset):
        escape = _ESCAPE.match(raw, at) if quotes == '"' else None
        at = escape.end() if escape else at + (2 if raw.startswith("''", at) and quotes == "'" else 1)
    return min(at, len(raw) - 1)


def _index(mark: Any) -> int:  # noqa: ANN401 - PyYAML's stubs allow None, and two classes
    """Return how many characters stand before a mark."""
    return 0 if mark is None else int(mark.index)


def _yaml_problem(error: yaml.MarkedYAMLError) -> str:
    """Put PyYAML's words into one sentence."""
    problem = " ".join((error.problem or "this cannot be read").split())
    if "'\\t'" in problem:
        return "a tab stands where YAML takes blanks only"
    if problem.startswith(("mapping values are not allowed", "expected ")):
        problem += "; a text with one of : , [ ] { } or a quote in it is put in quotes"
    return f"not valid YAML: {problem}"
