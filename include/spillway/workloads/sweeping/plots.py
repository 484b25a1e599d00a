"""Two plots of a sweep as SVG, which browsers and the web UI show without any library. Pure."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING

from spillway.workloads.sweeping.rows import Row, TrialStatus

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from pydantic import JsonValue

_WIDTH, _HEIGHT = 860.0, 440.0
_LEFT, _RIGHT, _TOP, _BOTTOM = 80.0, 40.0, 48.0, 56.0
_BEST, _GOOD, _BAD = "#c2410c", (37, 99, 235), (203, 213, 225)
_FONT = 'font-family="sans-serif" font-size="12" fill="#0f172a"'
_TICKS = 5
_LOG_FROM = 20.0
"""Positive numbers that differ by more than this factor are shown by their orders of magnitude."""

_ABSENT = "not there"


@dataclass(frozen=True, slots=True, kw_only=True)
class Axis:
    """Where values go, from 0 to 1, and which are written beside it."""

    places: dict[str, float]
    ticks: tuple[tuple[float, str], ...]

    def place(self, value: JsonValue) -> float:
        """Return where the value is; it is one of those the axis was made of."""
        return self.places[json.dumps(value)]


def learning_curves(rows: Sequence[Row], *, best: Row, metric: str) -> str:
    """Return the metric of each trial over its steps, the best trial on top."""
    drawn = [row for row in rows if row.curve]
    steps = make_axis([step for row in drawn for step, _ in row.curve], may_be_log=False)
    values = make_axis([value for row in drawn for _, value in row.curve])
    lines = [
        (row, [(_x(steps.place(step)), _y(values.place(value))) for step, value in row.curve])
        for row in _best_last(drawn, best)
    ]
    body = [
        _axis_line(_LEFT, _y(0), _WIDTH - _RIGHT, _y(0)),
        _axis_line(_LEFT, _y(0), _LEFT, _y(1)),
        *(_text(_x(place), _y(0) + 20, label) for place, label in steps.ticks),
        *(_text(_LEFT - 8, _y(place) + 4, label, anchor="end") for place, label in values.ticks),
        _text(_x(0.5), _HEIGHT - 12, "steps"),
        *(_line(row, points, _colour(row, best, share=0.5)) for row, points in lines),
    ]
    return _svg(f"{metric} of {len(drawn)} trials; the best is {best.trial}", body)


def parallel_coordinates(rows: Sequence[Row], *, best: Row, metric: str, mode: str) -> str:
    """Return a line for each trial through its parameters to its metric; the better, the bluer, and the best on top."""
    drawn = [row for row in rows if row.metric is not None and row.status is not TrialStatus.FAILED]
    names = sorted({name for row in drawn for name in row.params})
    columns: list[tuple[str, list[JsonValue]]] = [
        (name, [row.params.get(name, _ABSENT) for row in drawn]) for name in names
    ]
    columns.append((metric, [row.metric for row in drawn]))
    axes = [(name, make_axis(values)) for name, values in columns]
    across = [index / max(1, len(axes) - 1) for index in range(len(axes))]
    body: list[str] = []
    for row in _best_last(drawn, best):
        values = [*(row.params.get(name, _ABSENT) for name in names), row.metric]
        points = [
            (_x(x), _y(axis.place(value)))
            for x, (_, axis), value in zip(across, axes, values, strict=True)
        ]
        share = axes[-1][1].place(row.metric)
        body.append(_line(row, points, _colour(row, best, share=share, mode=mode)))
    for x, (name, axis) in zip(across, axes, strict=True):
        body.append(_axis_line(_x(x), _y(0), _x(x), _y(1)))
        anchor = "end" if x == 1.0 else "start"
        outer = {0.0: "start", 1.0: "end"}.get(x, "middle")  # long names stay in the frame
        body.append(_text(_x(x), _HEIGHT - 20, name, anchor=outer))
        offset = -6 if x == 1.0 else 6
        body += [
            _text(_x(x) + offset, _y(place) + 4, label, anchor=anchor, halo=True)
            for place, label in axis.ticks
        ]
    return _svg(f"Parameters and {metric} of {len(drawn)} trials; the best is {best.trial}", body)


def make_axis(values: Iterable[JsonValue], *, may_be_log: bool = True) -> Axis:
    """Return an axis for the values: numbers by size, anything else in steps of equal height, what is absent below all."""
    texts = {json.dumps(value): value for value in values}
    numbers = {
        text: float(value)
        for text, value in texts.items()
        if isinstance(value, int | float) and not isinstance(value, bool)
    }
    others = sorted(set(texts) - set(numbers) - {json.dumps(_ABSENT)})
    floor = 0.12 if json.dumps(_ABSENT) in texts else 0.0
    if numbers and not others:
        places, ticks = _by_size(numbers, may_be_log=may_be_log)
    else:
        ordered = [*sorted(numbers, key=lambda text: numbers[text]), *others]
        gaps = max(1, len(ordered) - 1)
        places = {text: index / gaps for index, text in enumerate(ordered)}
        ticks = tuple((places[text], _label(texts[text])) for text in ordered)
    lifted = {text: floor + (1 - floor) * place for text, place in places.items()}
    marks = tuple((floor + (1 - floor) * place, label) for place, label in ticks)
    if floor:
        lifted[json.dumps(_ABSENT)] = 0.0
        marks = ((0.0, _ABSENT), *marks)
    return Axis(places=lifted, ticks=marks)


def _by_size(
    numbers: dict[str, float], *, may_be_log: bool
) -> tuple[dict[str, float], tuple[tuple[float, str], ...]]:
    low, high = min(numbers.values()), max(numbers.values())
    if low == high:
        return dict.fromkeys(numbers, 0.5), ((0.5, f"{low:.4g}"),)
    shares = [index / (_TICKS - 1) for index in range(_TICKS)]
    if may_be_log and low > 0 and high / low >= _LOG_FROM:
        span = math.log(high) - math.log(low)
        places = {text: (math.log(each) - math.log(low)) / span for text, each in numbers.items()}
        marks = [math.exp(math.log(low) + share * span) for share in shares]
    else:
        scale = max(abs(low), abs(high))  # the difference itself may be too large for a float
        span = high / scale - low / scale or 1.0
        places = {text: (each / scale - low / scale) / span for text, each in numbers.items()}
        marks = [low * (1 - share) + high * share for share in shares]
    places = {text: min(max(place, 0.0), 1.0) for text, place in places.items()}
    ticks = tuple((index / (_TICKS - 1), f"{mark:.3g}") for index, mark in enumerate(marks))
    return places, ticks


def _label(value: JsonValue) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= 18 else f"{text[:17]}…"


def _best_last(rows: Sequence[Row], best: Row) -> list[Row]:
    return sorted(rows, key=lambda row: (row.trial == best.trial, row.trial))


def _colour(row: Row, best: Row, *, share: float, mode: str = "min") -> str:
    """Return the best trial's own colour, or one the nearer to blue the better the metric."""
    if row.trial == best.trial:
        return _BEST
    badness = share if mode == "min" else 1 - share
    mixed = (round(good + (bad - good) * badness) for good, bad in zip(_GOOD, _BAD, strict=True))
    return "#" + "".join(f"{part:02x}" for part in mixed)


def _x(share: float) -> float:
    return _LEFT + share * (_WIDTH - _LEFT - _RIGHT)


def _y(share: float) -> float:
    return _HEIGHT - _BOTTOM - share * (_HEIGHT - _TOP - _BOTTOM)


def _line(row: Row, points: Sequence[tuple[float, float]], colour: str) -> str:
    told = "; ".join(f"{name} {_label(value)}" for name, value in row.params.items())
    title = f"<title>{_written(f'trial {row.trial}, {row.status}: {told}; {row.metric}')}</title>"
    width = 2.5 if colour == _BEST else 1.2
    if len(points) == 1:
        ((x, y),) = points
        return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{width + 1}" fill="{colour}">{title}</circle>'
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    return f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="{width}">{title}</polyline>'


def _axis_line(x1: float, y1: float, x2: float, y2: float) -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="#475569"/>'


def _text(x: float, y: float, text: str, *, anchor: str = "middle", halo: bool = False) -> str:
    outline = ' stroke="#ffffff" stroke-width="3" paint-order="stroke"' if halo else ""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{outline}>{_written(text)}</text>'


def _written(text: str) -> str:
    """Return the text as XML has it, which has no control characters at all."""
    return escape("".join(each if each.isprintable() else "\ufffd" for each in text))


def _svg(title: str, body: Sequence[str]) -> str:
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH:g} {_HEIGHT:g}" {_FONT} role="img">',
            f'<rect width="{_WIDTH:g}" height="{_HEIGHT:g}" fill="#ffffff"/>',
            _text(_WIDTH / 2, 22, title),
            *body,
            "</svg>\n",
        ]
    )
