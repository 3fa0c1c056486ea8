"""Refs in little memory: sorted lines of an id and a name, as a bundle's header and the vault's lists have them.

450,000 refs take 36 MB here, and several times as much in a dictionary.
"""

from __future__ import annotations

import hashlib
import heapq
import io
import re
import zlib
from array import array
from bisect import bisect_left
from collections.abc import ItemsView, Iterable, Iterator, Mapping, ValuesView
from itertools import pairwise, zip_longest

MAX_LIST_BYTES = 48_000_000
"""Of a list of refs that is read, with what a server puts around each line."""
_LINE = re.compile(rb"[0-9a-f]{40} ([^\n]+)\n")
_ID, _NAME = slice(0, 40), slice(41, -1)
_GZIP = 31
"""What zlib calls its window's bits where the data has gzip's header."""
_PIECE = 1 << 20
_AFTER_SLASH = b"0"
"""The character that follows the slash."""


class RefList(Mapping[str, str]):
    """Object ids by ref name, in the order of the names' bytes; what is not UTF-8 holds surrogate escapes.

    Args:
        lines: ``<id> <name>`` and a line feed each, sorted by name.

    Raises:
        ValueError: they are not that.
    """

    def __init__(self, lines: bytes = b"") -> None:
        self.lines = lines
        self._starts = array("I")
        position, before = 0, b""
        while position < len(lines):
            match = _LINE.match(lines, position)
            if not match or match[1] <= before:
                raise ValueError(f"it is damaged, or not in order, at byte {position}")
            self._starts.append(position)
            position, before = match.end(), match[1]
        self._starts.append(position)

    @classmethod
    def of(cls, refs: Mapping[str, str]) -> RefList:
        """Return the list of some refs."""
        return cls.from_pairs((value.encode(), _bytes(name)) for name, value in refs.items())

    @classmethod
    def from_pairs(cls, refs: Iterable[tuple[bytes, bytes]]) -> RefList:
        """Return the list of ids and names in any order; of two of one name the later one counts.

        Raises:
            ValueError: one is no id, or no name.
        """
        written, before, is_sorted = io.BytesIO(), b"", True
        for value, name in refs:
            if len(value) != _ID.stop or b"\n" in name:
                raise ValueError(f"not a ref: {name[:100]!r}")
            is_sorted, before = is_sorted and name > before, name
            written.write(b"%s %s\n" % (value, name))
        lines = written.getvalue()
        if not is_sorted:
            ordered = sorted(re.findall(rb"[^\n]+\n", lines), key=lambda line: line[_NAME])
            lines = b"".join(
                line for line, later in zip_longest(ordered, ordered[1:], fillvalue=b"") if line[_NAME] != later[_NAME]
            )
        return cls(lines)

    @classmethod
    def inflate(cls, data: bytes) -> RefList:
        """Return the list that ``deflate`` packed.

        Raises:
            ValueError: it is damaged, or larger than any list.
        """
        stream = zlib.decompressobj(_GZIP)
        try:
            lines = stream.decompress(data, MAX_LIST_BYTES)
        except zlib.error as error:
            raise ValueError(f"it is damaged ({error})") from None
        if not stream.eof:
            raise ValueError("it is cut short, or too large")
        return cls(lines)

    def deflate(self) -> Iterator[bytes]:
        """Yield the lines, packed with gzip."""
        stream = zlib.compressobj(wbits=_GZIP)
        for start in range(0, len(self.lines), _PIECE):
            yield stream.compress(self.lines[start : start + _PIECE])
        yield stream.flush()

    @property
    def sha256(self) -> str:
        """Of the lines, in hexadecimal."""
        return hashlib.sha256(self.lines).hexdigest()

    def __len__(self) -> int:
        return len(self._starts) - 1

    def __iter__(self) -> Iterator[str]:
        return (_text(line[_NAME]) for line in self._each())

    def __getitem__(self, name: str) -> str:
        line = self._line(self._position(key := _bytes(name)))
        if not line or line[_NAME] != key:
            raise KeyError(name)
        return _text(line[_ID])

    def items(self) -> ItemsView[str, str]:
        """Return names and ids, which come in their order without a search for each."""
        return _Items(self)

    def values(self) -> ValuesView[str]:
        """Return the ids, in the order of their names."""
        return _Values(self)

    def span(self, prefix: str) -> tuple[int, int]:
        """Return the numbers of the first ref ``below`` a text, and of the first one after those."""
        begin = _bytes(prefix)
        return self._position(begin), self._position(begin[:-1] + _AFTER_SLASH)

    def below(self, prefix: str) -> RefList:
        """Return the refs whose names begin with a text that ends with a slash."""
        return self.part(*self.span(prefix))

    def part(self, start: int, end: int) -> RefList:
        """Return the refs from one number to before another one."""
        first, last = (self._starts[min(number, len(self))] for number in (start, end))
        return RefList(self.lines[first:last])

    def since(self, before: RefList) -> tuple[RefList, RefList]:
        """Return the refs that an earlier list lacks or has with another id, and those of names that only it has."""
        if not before:
            return self, before
        changed, deleted = io.BytesIO(), io.BytesIO()
        ours, theirs = self._each(), before._each()
        mine, other = next(ours, b""), next(theirs, b"")
        while mine or other:
            if other and (not mine or other[_NAME] < mine[_NAME]):
                deleted.write(other)
                other = next(theirs, b"")
                continue
            changed.write(mine if mine != other else b"")
            other = next(theirs, b"") if other[_NAME] == mine[_NAME] else other
            mine = next(ours, b"")
        return RefList(changed.getvalue()), RefList(deleted.getvalue())

    def updated(self, changed: RefList, deleted: Iterable[str]) -> RefList:
        """Return the list with some refs changed or added, and others left out; what is both is changed.

        Args:
            changed: the former.
            deleted: the names of the latter, in their order.
        """
        news = ((line[_NAME], line) for line in changed._each())
        gone = ((_bytes(name), b"") for name in deleted)
        lines, position = io.BytesIO(), 0
        for name, line in heapq.merge(gone, news):
            number = self._position(name)
            lines.write(self.lines[position : self._starts[number]])
            lines.write(line)
            position = self._starts[number + (self._line(number)[_NAME] == name and number < len(self))]
        lines.write(self.lines[position:])
        return RefList(lines.getvalue())

    def _each(self) -> Iterator[bytes]:
        return (self.lines[start:end] for start, end in pairwise(self._starts))

    def _line(self, number: int) -> bytes:
        """Return a line; an empty one for the number after the last."""
        return self.lines[self._starts[number] : self._starts[number + 1]] if number < len(self) else b""

    def _position(self, name: bytes) -> int:
        """Return the number of the first line whose name is this one or a later one."""
        return bisect_left(range(len(self)), name, key=lambda number: self._line(number)[_NAME])


class _Items(ItemsView[str, str]):
    _mapping: RefList

    def __iter__(self) -> Iterator[tuple[str, str]]:
        return ((_text(line[_NAME]), _text(line[_ID])) for line in self._mapping._each())


class _Values(ValuesView[str]):
    _mapping: RefList

    def __contains__(self, value: object) -> bool:
        return any(value == one for one in self)

    def __iter__(self) -> Iterator[str]:
        return (_text(line[_ID]) for line in self._mapping._each())


def _bytes(name: str) -> bytes:
    return name.encode("utf-8", "surrogateescape")


def _text(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")
