"""Write self-contained HTML files from the templates beside this file."""

import base64
import hashlib
import html
import json
import re
from pathlib import Path

import numpy as np

from utils.files import write_text
from utils.reporting.colours import DARK_EVENT_COLOURS, EVENT_COLOURS

FOLDER = Path(__file__).parent


def write_page(path: Path, template: str, title: str, data: dict) -> None:
    """Write one HTML file with its style, script and data, atomically.

    The files are `<template>.html`, `.css` and `.js`, after the common `base.css` and `base.js`; events have the
    colours of figures, and the script displays `data`. The content security policy permits no network access and no
    script but the template's, identified by its hash, so that no name in an annotation file can become code.
    """
    both = EVENT_COLOURS, DARK_EVENT_COLOURS
    light, dark = (" ".join(f"--{name}: {colour};" for name, colour in of.items()) for of in both)
    of_events = f":root {{ {light} }}\n@media (prefers-color-scheme: dark) {{ :root {{ {dark} }} }}\n"
    style = of_events + _read("base.css") + _read(f"{template}.css")
    script = _read("base.js") + _read(f"{template}.js")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    parts = {
        "title": html.escape(title),
        "policy": "default-src 'none'; style-src 'unsafe-inline'; img-src data:; media-src data: file: 'self'; "
        f"script-src 'sha256-{digest}'",
        "style": style,
        "script": script,
        "data": embedded_json(data),
    }
    # One pass, so that a marker within the data stays what it is.
    write_text(path, re.sub(r"\{\{(\w+)\}\}", lambda marker: parts[marker[1]], _read(f"{template}.html")))


def embedded_json(data: dict) -> str:
    """Return JSON for a script element, without `<`, which could end it; raise ValueError for NaN and infinity."""
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c")


def packed(values: np.ndarray) -> str:
    """Return an array's bytes in base64 for typed arrays of the page's script: little-endian, row by row."""
    little_endian = values.astype(values.dtype.newbyteorder("<"))
    return base64.b64encode(little_endian.tobytes()).decode()


def _read(name: str) -> str:
    return (FOLDER / name).read_text(encoding="utf-8")
