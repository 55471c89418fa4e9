"""The page of an inspection: one HTML file that needs no server, no network and no other file."""

import base64
import html
import json
import math
import re
from collections.abc import Sequence
from importlib.resources import files
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xlstm_rl.inspection.erasing import Erasing, ErasingCurve
from xlstm_rl.inspection.results import Inspected, InspectedEpisode
from xlstm_rl.inspection.rows import Row
from xlstm_rl.inspection.saliency import Saliency
from xlstm_rl.runs.plotting import COLORS

PAGE = "index.html"
"""Name of the file."""

_LARGE, _SMALL, _MANY = 256, 160, 250
"""Pixels of the longer side of a picture, of few and of many."""


def write_page(path: Path, runs: Sequence[Inspected]) -> None:
    """Write the page.

    Args:
        path: of the file.
        runs: one policy, or several that stand side by side.
    """
    title = " and ".join(run.name for run in runs)
    data = {"colors": COLORS, "runs": [_run(run) for run in runs]}
    text = json.dumps(data, allow_nan=False, separators=(",", ":"))
    parts = {
        "title": html.escape(title),
        "style": _template("page.css"),
        "script": _template("page_charts.js") + _template("page_layout.js"),
        "data": text.replace("<", "\\u003c"),  # no end of the script inside
    }
    page = re.sub(r"\{\{(\w+)\}\}", lambda mark: parts[mark[1]], _template("page.html"))
    path.write_text(page, encoding="utf-8")


def _template(name: str) -> str:
    return files("xlstm_rl.inspection").joinpath(name).read_text("utf-8")


def _run(run: Inspected) -> dict[str, Any]:
    return {
        "name": run.name,
        "about": run.about,
        "notes": run.notes,
        "episodes": [_episode(one) for one in run.episodes],
        "erasing": None if run.erasing is None else _erasing(run.erasing),
    }


def _episode(episode: InspectedEpisode) -> dict[str, Any]:
    columns, recording = episode.columns, episode.recording
    pictures, places = _pictures(recording.frames[: recording.length])
    actions = {
        name.partition("/")[2]: _numbers(values)
        for name, values in columns.items()
        if name.split("/")[0] == "action"
    }
    return {
        "title": episode.title,
        "length": recording.length,
        "pictures": pictures,
        "frames": places,
        "actions": actions,
        "numbers": {name: _numbers(columns[name]) for name in ("reward", "return", "value")},
        "rows": [_row(row) for row in episode.rows],
        "saliency": None if episode.saliency is None else _saliency(episode.saliency),
    }


def _row(row: Row) -> dict[str, Any]:
    return {
        "key": row.key,
        "title": row.title,
        "about": row.about,
        "offset": row.offset,
        "log": row.is_log,
        "limits": row.limits,
        "bars": row.bars,
        "lines": [
            {
                "label": label,
                "values": _numbers(values),
                "band": [_numbers(end) for end in row.bands.get(label, ())],
                "dots": _numbers(row.dots[label]) if label in row.dots else [],
            }
            for label, values in row.lines.items()
        ],
    }


def _saliency(found: Saliency) -> dict[str, Any]:
    """Each action's weights as bytes, of which 255 is its largest of the past."""
    levels = np.rint(255 * found.relative).astype(np.uint8)
    return {
        "steps": found.steps.tolist(),
        "levels": base64.b64encode(levels.tobytes()).decode("ascii"),
    }


def _erasing(found: Erasing) -> dict[str, Any]:
    return {
        "intact": found.intact.mean,
        "without": found.without,
        "episodes": len(found.intact.returns),
        "once": [_curve(one) for one in found.once],
        "every": None if found.every is None else _curve(found.every),
    }


def _curve(curve: ErasingCurve) -> dict[str, Any]:
    return {
        "label": curve.part,
        "steps": curve.steps.tolist(),
        "mean": _numbers(curve.mean),
        "interval": [_numbers(end) for end in curve.interval.T],
    }


def _numbers(values: NDArray[np.float64]) -> list[float | None]:
    """Return numbers short enough for a page; None for those that JSON has no word for."""
    return [
        float(f"{value + 0.0:.5g}") if math.isfinite(value) else None for value in values.tolist()
    ]


def _pictures(frames: Sequence[NDArray[np.uint8]]) -> tuple[list[str], list[int]]:
    """Return the pictures that differ, as addresses, and which of them each step shows."""
    from matplotlib.image import imsave

    side = _LARGE if len(frames) <= _MANY else _SMALL
    known: dict[bytes, int] = {}
    pictures: list[str] = []
    places = []
    for frame in frames:
        small = _smaller(frame, side)
        place = known.setdefault(small.tobytes(), len(pictures))
        if place == len(pictures):
            drawn = BytesIO()
            imsave(drawn, small, format="png")
            text = base64.b64encode(drawn.getvalue()).decode("ascii")
            pictures.append(f"data:image/png;base64,{text}")
        places.append(place)
    return pictures, places


def _smaller(frame: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    """Return a picture whose longer side is at most so many pixels: means of squares."""
    factor = -(-max(frame.shape[:2]) // side)
    height, width = (size // factor * factor for size in frame.shape[:2])
    squares = frame[:height, :width].reshape(height // factor, factor, width // factor, factor, 3)
    found: NDArray[np.uint8] = squares.mean(axis=(1, 3)).astype(np.uint8)
    return found
