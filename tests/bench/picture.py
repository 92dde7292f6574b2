"""The picture: for each workload a bar for each peer, in units of what walkin reaches."""

from html import escape

from tests.bench.run import Run
from tests.bench.workloads import BARE, DATASETTE, EVERYBODY, RQLITE, SQLD, TWO, WALKIN

_COLOURS = {
    WALKIN: "#1f6f5c",
    TWO: "#59a08f",
    BARE: "#b9bec4",
    SQLD: "#c8642f",
    RQLITE: "#d9a441",
    DATASETTE: "#6c7fb0",
}
_WIDTH, _LEFT, _LINE, _GAP = 860, 150, 20, 34
#: A longer bar is cut and says so.
_MOST = 2.5
_UNIT = (_WIDTH - _LEFT - 170) / _MOST


def draw(run: Run, titles: dict[str, str]) -> str:
    """Return the picture as SVG; `titles` are the rows to show."""
    parts: list[str] = []
    y = 44
    for row, title in titles.items():
        rates = {who: run.number(row, who, "rate") for who in (WALKIN, TWO, *EVERYBODY[1:])}
        ours = rates[WALKIN]
        if not ours:
            continue
        parts.append(_text(12, y, title.replace("`", ""), "title"))
        for who, rate in rates.items():
            if rate:
                y += _LINE
                parts.append(_bar(y, who, rate / ours, rate))
        y += _GAP
    x = _LEFT + _UNIT
    line = f'<line x1="{x:.0f}" x2="{x:.0f}" y1="34" y2="{y - _GAP + 10}" class="one"/>'
    style = (
        "text{font:13px system-ui,sans-serif;fill:#222}.title{font-weight:600}.head{fill:#555}"
        ".one{stroke:#1f6f5c;stroke-dasharray:3 3}"
    )
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {y}" role="img">',
            "<title>Throughput of each peer in units of walkin's</title>",
            f'<style>{style}</style><rect width="{_WIDTH}" height="{y}" fill="#fff"/>',
            _text(12, 20, "Throughput, walkin = 1 (the dashed line); longer is faster", "head"),
            line,
            *parts,
            "</svg>\n",
        ]
    )


def _bar(y: int, who: str, ratio: float, rate: float) -> str:
    length = min(ratio, _MOST) * _UNIT
    cut = " →" if ratio > _MOST else ""
    label = f"{ratio:.2f}{cut}  ({rate:,.0f}/s)"
    return (
        _text(24, y, who)
        + f'<rect x="{_LEFT}" y="{y - 11}" width="{max(1, length):.1f}" height="14"'
        + f' fill="{_COLOURS[who]}"/>'
        + _text(round(_LEFT + length + 6), y, label)
    )


def _text(x: int, y: int, text: str, kind: str = "") -> str:
    return f'<text x="{x}" y="{y}" class="{kind}">{escape(text)}</text>'
