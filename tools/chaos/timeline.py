"""The picture of a run: what was broken, who led, what was answered, how fast. SVG written by hand.

    text = timeline.svg(history, title="…")
    page = timeline.html(text, title="…")

Reading order of the picture, from above: phases, faults (a row for each kind), leader, answers per second, latency
(logarithmic). Bands of faults shine through the panels below. Everything has a <title>: a browser shows it under
the pointer. Pure; no scripts, no fonts, no files.
"""
import html as html_
import math

import figures

WIDTH, LEFT, RIGHT = 1200, 150, 24
ROW, GAP = 20, 26
PANEL = 150
CHAR = 6.4              # width of a character at 11 px, a little more than it is
BUCKETS = 200           # about so many
STEPS_S = (0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60, 300, 600)
TICKS_S = (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1200, 1800, 3600, 7200, 14400)
FAULT_COLORS = ("#d1495b", "#e08a1e", "#8f5bbf", "#3a7ca5", "#7a6c5d", "#c0399f", "#5f8a3d", "#b5651d")
NODE_COLORS = ("#4c78a8", "#59a14f", "#b07aa1", "#76b7b2", "#9c755f", "#bab0ac", "#edc948")
OK, REFUSED, P50, P99, INK, FAINT = "#2a7f4f", "#b8860b", "#1f5fa8", "#c43c39", "#222", "#ddd"


def text_width(text):
    return len(text) * CHAR


def nice_top(value):
    """The next of 1, 2, 5 times a power of ten."""
    if value <= 0:
        return 1.0
    power = 10 ** math.floor(math.log10(value))
    return next(n * power for n in (1, 2, 5, 10) if n * power >= value * 0.999999)


def number(value):
    return f"{value:g}" if value < 10000 else f"{value:.0f}"


class Canvas:
    def __init__(self, end_s):
        self.out, self.end_s = [], max(end_s, 0.001)

    def x(self, seconds):
        return LEFT + (WIDTH - LEFT - RIGHT) * min(max(seconds / self.end_s, 0), 1)

    def add(self, text):
        self.out.append(text)

    def rect(self, x, y, w, h, fill, title="", **more):
        extra = "".join(f' {k.replace("_", "-")}="{v}"' for k, v in more.items())
        inner = f"<title>{html_.escape(title)}</title>" if title else ""
        self.add(f'<rect x="{x:.1f}" y="{y:.1f}" width="{max(w, 1.5):.1f}" height="{h:.1f}" fill="{fill}"{extra}>'
                 f"{inner}</rect>")

    def line(self, x1, y1, x2, y2, stroke=FAINT, **more):
        extra = "".join(f' {k.replace("_", "-")}="{v}"' for k, v in more.items())
        self.add(f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{stroke}"{extra}/>')

    def text(self, x, y, text, anchor="start", fill=INK, **more):
        extra = "".join(f' {k.replace("_", "-")}="{v}"' for k, v in more.items())
        self.add(f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{fill}"{extra}>'
                 f"{html_.escape(text)}</text>")


def phases(past):
    """[(name, start_s, end_s)]"""
    marks = [(n["t"] / 1e9, n["phase"]) for n in past.notes if n.get("phase")]
    ends = [m[0] for m in marks[1:]] + [past.end / 1e9]
    return [(name, start, end) for (start, name), end in zip(marks, ends)]


def leaders(past):
    """[(node or 0, start_s, end_s)]"""
    marks = [(n["t"] / 1e9, n["leader"]) for n in past.notes if "leader" in n]
    ends = [m[0] for m in marks[1:]] + [past.end / 1e9]
    return [(node, start, end) for (start, node), end in zip(marks, ends)]


def _rows_of(bands, end_s, canvas):
    """Bars of one kind in as few rows as they need; in a row neither bars nor labels meet.
    ([(band, row, x1, x2, label, anchor, x of the label)], rows)"""
    placed = []
    for band in bands:
        x1 = canvas.x(band.start / 1e9)
        x2 = max(canvas.x(band.end / 1e9 if band.end is not None else end_s), x1 + 1.5)
        label, wide = str(band.target), text_width(str(band.target))
        if wide + 8 <= x2 - x1:  # in the bar, after it, or before it where the picture ends
            placed.append((x1, x2, band, x1, x2, label, "inside", x1 + 4))
        elif x2 + 4 + wide <= WIDTH - RIGHT:
            placed.append((x1, x2 + 4 + wide, band, x1, x2, label, "start", x2 + 4))
        else:
            placed.append((x1 - 4 - wide, x2, band, x1, x2, label, "end", x1 - 4))
    free, out = [], []
    for left, right, *what in sorted(placed, key=lambda p: p[0]):
        row = next((n for n, at in enumerate(free) if at + 4 <= left), None)
        if row is None:
            row = len(free)
            free.append(0)
        free[row] = right
        out.append((what[0], row, *what[1:]))
    return out, max(1, len(free))


def _phases(c, past, y):
    c.text(LEFT - 10, y + 14, "phase", "end")
    for n, (name, start, end) in enumerate(phases(past)):
        x, w = c.x(start), c.x(end) - c.x(start)
        c.rect(x, y + 2, w, ROW - 4, ("#eceff1", "#dfe5e8")[n % 2], f"{name}: {start:.2f} s to {end:.2f} s")
        if text_width(name) + 8 <= w:
            c.text(x + 4, y + 14, name)
    return y + ROW


def _faults(c, past, y):
    """Rows of faults. Returns (y after them, [(band, color)])."""
    kinds, colored, end_s = {}, [], past.end / 1e9
    for band in past.faults:
        kinds.setdefault(band.kind, []).append(band)
    for n, (kind, bands) in enumerate(kinds.items()):
        color = FAULT_COLORS[n % len(FAULT_COLORS)]
        placed, rows = _rows_of(bands, end_s, c)
        c.text(LEFT - 10, y + 14, kind if text_width(kind) < LEFT - 14 else kind[:int((LEFT - 20) / CHAR)] + "…", "end")
        for band, row, x1, x2, label, anchor, at in placed:
            top = y + row * ROW
            until = f"{band.end / 1e9:.2f} s" if band.end is not None else "the end"
            c.rect(x1, top + 3, x2 - x1, ROW - 6, color, f"{kind} {label}: {band.start / 1e9:.2f} s to {until}", rx=2)
            if anchor == "inside":
                c.text(at, top + 14, label, fill="#fff")
            else:
                c.text(at, top + 14, label, anchor)
            colored.append((band, color))
        y += rows * ROW
    if not kinds:
        c.text(LEFT - 10, y + 14, "faults", "end")
        c.text(LEFT + 4, y + 14, "none")
        y += ROW
    return y, colored


def _leaders(c, past, y):
    c.text(LEFT - 10, y + 14, "leader", "end")
    for node, start, end in leaders(past):
        x, w = c.x(start), c.x(end) - c.x(start)
        name = f"n{node}" if node else "nobody"
        fill = NODE_COLORS[(node - 1) % len(NODE_COLORS)] if node else "#fff"
        c.rect(x, y + 3, w, ROW - 6, fill, f"{name}: {start:.2f} s to {end:.2f} s", stroke="#999", stroke_width="0.5")
        if text_width(name) + 6 <= w:
            c.text(x + 4, y + 14, name, fill="#fff" if node else INK)
    return y + ROW


def _panel(c, y, name, unit, colored, past):
    """Frame, bands of faults. Returns (top, bottom)."""
    top, bottom = y + GAP, y + GAP + PANEL
    c.text(LEFT, y + GAP - 8, f"{name}, {unit}", font_weight="bold")
    c.rect(LEFT, top, WIDTH - LEFT - RIGHT, PANEL, "#fcfcfc", stroke="#bbb", stroke_width="0.5")
    for band, color in colored:
        x1 = c.x(band.start / 1e9)
        x2 = c.x((band.end if band.end is not None else past.end) / 1e9)
        c.rect(x1, top, x2 - x1, PANEL, color, fill_opacity="0.13")
    return top, bottom


def _legend(c, y, entries):
    x = WIDTH - RIGHT
    for name, color in reversed(entries):
        x -= text_width(name) + 4
        c.text(x, y + GAP - 8, name)
        x -= 16
        c.rect(x, y + GAP - 16, 11, 8, color)
        x -= 12


def _path(c, points, color, width=1.4):
    """points: [(x, y) or None]; None breaks the line. A point alone is a dot."""
    part = []
    for p in [*points, None]:
        if p is not None:
            part.append(p)
        elif len(part) == 1:
            c.add(f'<circle cx="{part[0][0]:.1f}" cy="{part[0][1]:.1f}" r="1.6" fill="{color}"/>')
            part = []
        elif part:
            c.add(f'<polyline fill="none" stroke="{color}" stroke-width="{width}" stroke-linejoin="round" points="'
                  + " ".join(f"{x:.1f},{y:.1f}" for x, y in part) + '"/>')
            part = []


def _throughput(c, past, y, colored, step):
    ok, refused = figures.per_bucket(past, step)
    top, bottom = _panel(c, y, "answers", "per second", colored, past)
    _legend(c, y, [("ok", OK), ("refused", REFUSED)])
    highest = nice_top(max([*ok, *refused, 0]) / step)
    for n in range(5):
        value = highest * n / 4
        at = bottom - PANEL * n / 4
        c.line(LEFT, at, WIDTH - RIGHT, at)
        c.text(LEFT - 8, at + 4, number(value), "end")
    for series, color in ((ok, OK), (refused, REFUSED)):
        _path(c, [(c.x((n + 0.5) * step), bottom - PANEL * v / step / highest) for n, v in enumerate(series)], color)
    return bottom


def _latency(c, past, y, colored, step):
    series = figures.latency_buckets(past, step)
    top, bottom = _panel(c, y, "latency of writes, by time of call", "ms, logarithmic", colored, past)
    _legend(c, y, [("p50", P50), ("p99", P99)])
    values = [v for pair in series for v in pair or ()]
    low = math.floor(math.log10(max(min(values, default=1), 0.01)))
    high = max(math.ceil(math.log10(max(max(values, default=10), 0.1))), low + 1)

    def at(value):
        return bottom - PANEL * (math.log10(max(value, 10 ** low)) - low) / (high - low)
    for power in range(low, high + 1):
        c.line(LEFT, at(10 ** power), WIDTH - RIGHT, at(10 ** power))
        c.text(LEFT - 8, at(10 ** power) + 4, number(10 ** power), "end")
    for which, color in ((0, P50), (1, P99)):
        _path(c, [None if pair is None else (c.x((n + 0.5) * step), at(pair[which]))
                  for n, pair in enumerate(series)], color)
    return bottom


def _time_axis(c, y):
    width = max(1, c.end_s)
    tick = next((t for t in TICKS_S if width / t <= 12), TICKS_S[-1])
    for n in range(int(c.end_s / tick) + 1):
        x = c.x(n * tick)
        c.line(x, y, x, y + 5, "#666")
        if x + text_width(number(n * tick)) / 2 <= WIDTH - RIGHT + 12:
            c.text(x, y + 18, number(n * tick), "middle")
    c.text((LEFT + WIDTH - RIGHT) / 2, y + 36, "seconds since the run began", "middle")
    return y + 46


def step_of(past):
    """Width of a bucket, s."""
    return next((s for s in STEPS_S if past.end / 1e9 / s <= BUCKETS), STEPS_S[-1])


def svg(past, title=""):
    c, step = Canvas(past.end / 1e9), step_of(past)
    c.text(LEFT, 24, title, font_size="14", font_weight="bold")
    y = _phases(c, past, 36)
    y, colored = _faults(c, past, y)
    y = _leaders(c, past, y)
    y = _throughput(c, past, y, colored, step)
    y = _latency(c, past, y, colored, step)
    y = _time_axis(c, y)
    c.text(WIDTH - RIGHT, y - 10, f"one point: {number(step)} s", "end", fill="#777")
    return (f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {y:.0f}" width="{WIDTH}" height="{y:.0f}" '
            f'font-family="DejaVu Sans, Verdana, sans-serif" font-size="11">\n'
            f'<rect width="{WIDTH}" height="{y:.0f}" fill="#fff"/>\n' + "\n".join(c.out) + "\n</svg>\n")


def html(picture, title, below=""):
    """A page with the picture in it; below: HTML."""
    return (f'<!doctype html>\n<html lang="en"><meta charset="utf-8"><title>{html_.escape(title)}</title>\n'
            "<style>body{font:14px/1.45 sans-serif;margin:1.5em;max-width:1240px;color:#222}svg{max-width:100%;height:auto}"
            "table{border-collapse:collapse}td,th{border:1px solid #ccc;padding:.2em .6em;text-align:left}"
            "pre{background:#f4f4f4;padding:.6em;overflow:auto}</style>\n" + picture + below + "</html>\n")
