"""Self-contained HTML pages: the styles, the scripts and the data are in the one file, and nothing is requested.

A page NAME is written as NAME.html, NAME.css and NAME.js in this folder, and where its header has more than the title,
NAME_controls.html; base.html, base.css and charts.js belong to all of them.
"""

import base64
import html
import json
import math
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

FOLDER = Path(__file__).resolve().parent
# The browser itself refuses whatever would leave the page.
POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data: blob:"


_KINDS = {np.dtype(kind): name for kind, name in (("u1", "u8"), ("i2", "i16"), ("i4", "i32"), ("f4", "f32"))}


class Arrays:
    """Typed arrays for a page, which become one compressed text."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._length = 0

    def add(self, values: np.ndarray) -> dict[str, Any]:
        """Add an array of uint8, int16, int32 or float32; returns where the page finds it."""
        values = np.ascontiguousarray(values)
        kind = _KINDS[values.dtype]
        padding = -self._length % 4
        self._parts += [bytes(padding), values.astype(values.dtype.newbyteorder("<")).tobytes()]
        place = {"kind": kind, "at": self._length + padding, "length": values.size}
        self._length += padding + values.nbytes
        return place

    def packed(self) -> str:
        """All arrays, as base64 of a zlib stream."""
        return base64.b64encode(zlib.compress(b"".join(self._parts), 9)).decode()


def render(name: str, title: str, data: Mapping[str, Any], arrays: Arrays | None = None) -> str:
    """A page as text.

    Args:
        name: which page of this folder.
        title: its title.
        data: plain values for the script; numbers that are not finite become null.
        arrays: arrays that `data` refers to.
    """
    parts = {
        "controls": _read(f"{name}_controls.html") if (FOLDER / f"{name}_controls.html").exists() else "",
        "body": _read(f"{name}.html"),
        "title": html.escape(title),
        "policy": POLICY,
        "style": _read("base.css") + _read(f"{name}.css"),
        "data": _json(data),
        "arrays": arrays.packed() if arrays is not None else "",
        "script": _read("charts.js") + _read(f"{name}.js"),
    }
    text = _read("base.html")
    for key, value in parts.items():
        text = text.replace(f"[[{key}]]", value)
    return text


def _read(name: str) -> str:
    return (FOLDER / name).read_text(encoding="utf-8")


def _json(data: Mapping[str, Any]) -> str:
    """JSON that may stand in a script element."""
    return json.dumps(_finite(data), separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
