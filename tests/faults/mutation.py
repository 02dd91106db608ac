"""Strategies that spoil what is sound: JSON documents, and bytes."""

from typing import Any

from hypothesis import strategies as st

_NO_TEXT = st.sampled_from(["\ud800", "\udfff\ud800", "a\udc00b"])
"""JSON can spell halves of surrogate pairs; UTF-8 cannot."""

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20) | _NO_TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8) | _NO_TEXT, inner, max_size=3),
    max_leaves=6,
)

_ODD = st.sampled_from(
    [0, -1, 2**31, 2**63, 1e308, -1e-300, "", ".", "../x", "a" * 200, "\x00", "a\x00b", "\ud800", "fake", None, [], {}]
)


def spoiled(document: Any) -> st.SearchStrategy[Any]:
    """A document with up to three of its parts replaced, removed or added to."""
    return st.lists(st.integers(0, 10**6), min_size=1, max_size=3).flatmap(
        lambda places: st.lists(_ODD | JSON, min_size=len(places), max_size=len(places)).map(
            lambda values: _spoil(document, list(zip(places, values, strict=True)))
        )
    )


def _spoil(document: Any, changes: list[tuple[int, Any]]) -> Any:
    for place, value in changes:
        paths = list(_paths(document, ()))
        document = _with(document, paths[place % len(paths)], value, remove=place % 7 == 0)
    return document


def _paths(document: Any, path: tuple[Any, ...]) -> Any:
    if path:
        yield path
    parts = (
        document.items() if isinstance(document, dict) else enumerate(document) if isinstance(document, list) else ()
    )
    for key, inner in parts:
        yield from _paths(inner, (*path, key))
    if isinstance(document, dict):
        yield (*path, "surplus")


def _with(document: Any, path: tuple[Any, ...], value: Any, *, remove: bool) -> Any:
    copy = dict(document) if isinstance(document, dict) else list(document)
    key, *rest = path
    if rest:
        copy[key] = _with(copy[key], tuple(rest), value, remove=remove)
    elif remove and isinstance(copy, dict):
        copy.pop(key, None)
    else:
        copy[key] = value
    return copy


def spoiled_bytes(data: bytes) -> st.SearchStrategy[bytes]:
    """Bytes with pieces cut out, doubled, overwritten or put in; or other bytes altogether."""
    change = st.tuples(
        st.integers(0, len(data)),
        st.integers(0, 40),
        st.binary(max_size=12)
        | st.sampled_from([b",", b"\n", b"\r\n", b";", b'"', b"nan", b"-1", b"1e999", b"\xff\xfe"]),
    )

    def spoil(changes: list[tuple[int, int, bytes]]) -> bytes:
        text = data
        for at, length, piece in changes:
            text = text[:at] + piece + text[at + length :]
        return text

    return st.lists(change, min_size=1, max_size=4).map(spoil) | st.binary(max_size=300)
