"""The report of a turn for a browser: what came of it in one line, what it brings as bars, and the rest below.

One file that needs no other, in light and dark as the reader's system asks, and fit for paper. Whatever comes from
outside is escaped.
"""

from __future__ import annotations

from html import escape

from windlass.loop.turning.ground import Gain
from windlass.loop.turning.page import Page
from windlass.loop.turning.words import figure, told


def html(page: Page) -> str:
    kind = "promoted" if page.promoted else "trial" if page.on_trial else "refused"
    caution = f"<p class=caution>{_say(page.caution)}</p>" if page.caution else ""
    gains = "".join(map(_gain, page.gains)) or "<p>Nothing that was shown.</p>"
    header = "".join(f"<th>{name}</th>" for name in ("Tried", "What it is", "Gain", "Minutes", "What came of it"))
    rows = "".join(_row(page, row) for row in page.rows())
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8">'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><meta name="color-scheme" '
        f'content="light dark"><title>{escape(page.title)}</title><style>{_STYLE}</style><main>'
        f'<header class="{kind}"><h1>{escape(page.title)}</h1><p>{_say(page.done)}</p></header>{caution}'
        f"<section><h2>What it brings</h2>{gains}<p class=small>{_say(page.sure)}</p></section>"
        f'<div class="pair"><section><h2>What it cost</h2><p>{_say(page.cost)}.</p></section>'
        f"<section><h2>How to go back</h2><p>{_say(page.back)}</p></section></div>"
        f"<section><h2>What was tried</h2><p class=small>Learned from {escape(page.learned)}. Gains are those on the "
        f'questions to choose by.</p><div class="wide"><table><thead><tr>{header}</tr></thead><tbody>{rows}</tbody>'
        f"</table></div></section><section><h2>The gate's own words</h2><p class=small>{_say(page.verdict)}</p>"
        "</section></main></html>\n"
    )


def _row(page: Page, row: tuple[str, ...]) -> str:
    """The one that was compared stands out."""
    chosen = ' class="chosen"' if row[0] == page.chosen else ""
    return f"<tr{chosen}>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>"


def _gain(gain: Gain) -> str:
    """Before and after as numbers, the difference as a bar around no difference, and in words."""
    d = gain.difference
    up = gain.better == "higher"
    kind = "good" if (d.low > 0 if up else d.high < 0) else "bad" if (d.high < 0 if up else d.low > 0) else "open"
    most = max(abs(d.low), abs(d.high), 1e-12) * 1.15

    def at(value: float) -> str:
        return f"{50 + 50 * value / most:.2f}"

    bar = (
        f'<svg viewBox="0 0 100 10" preserveAspectRatio="none" aria-hidden="true">'
        f'<rect x="{at(d.low)}" y="3" width="{50 * (d.high - d.low) / most:.2f}" height="4" rx="1"/>'
        f'<line x1="{at(d.estimate)}" x2="{at(d.estimate)}" y1="1" y2="9"/><line class="zero" x1="50" x2="50" y1="0" '
        f'y2="10"/></svg><p class="ends"><span>less</span><span>no difference</span><span>more</span></p>'
    )
    name, _, words = told(gain).partition(": ")
    return (
        f'<div class="gain {kind}"><p class="what">{escape(name)}</p><p class="figures">{figure(gain, gain.before)} '
        f'<span aria-label="to">→</span> <b>{figure(gain, gain.after)}</b></p><div class="bar">{bar}</div>'
        f'<p class="small">{escape(words)}</p></div>'
    )


def _say(text: str) -> str:
    """Escaped, with what stands between backticks as something to type."""
    parts = escape(text).split("`")
    if len(parts) % 2 == 0:
        return escape(text)
    return "".join(f"<code>{part}</code>" if at % 2 else part for at, part in enumerate(parts))


_STYLE = """
:root{color-scheme:light dark;--ink:#16181d;--soft:#5a6070;--line:#d9dce3;--card:#fff;--back:#f5f6f8;--good:#1a7f4b;
--bad:#b3261e;--open:#6b7280;--trial:#0b6a8f}
@media (prefers-color-scheme:dark){:root{--ink:#e8eaee;--soft:#a3a9b6;--line:#363b46;--card:#1d2027;--back:#14161b;
--good:#4cc38a;--bad:#f2837b;--open:#9aa1ae;--trial:#5cb8dd}}
body{font:16px/1.5 system-ui,sans-serif;margin:0;background:var(--back);color:var(--ink)}
main{max-width:54rem;margin:0 auto;padding:1.5rem 1rem 3rem;display:grid;gap:1rem}
header,section,.caution{background:var(--card);border:1px solid var(--line);border-radius:12px;padding:1rem 1.25rem;
margin:0;min-width:0}
header{border-left:8px solid var(--open)}header.promoted{border-left-color:var(--good)}
header.trial{border-left-color:var(--trial)}
h1{font-size:1.6rem;line-height:1.2;margin:0 0 .3rem}h2{font-size:1rem;margin:0 0 .5rem}p{margin:0}
.small{font-size:.875rem;color:var(--soft)}.caution{border-left:8px solid var(--bad)}
.gain{display:grid;grid-template-columns:minmax(0,1fr) auto;gap:.15rem 1rem;padding:.7rem 0;
border-top:1px solid var(--line)}.gain:first-of-type{border-top:0;padding-top:0}.gain+p{margin-top:.5rem}
.what{font-weight:600}.figures{font-size:1.15rem;white-space:nowrap}.gain>.small,.bar{grid-column:1/-1}
.bar svg{width:100%;height:22px;display:block;background:var(--back);border-radius:6px;margin-top:.2rem}
.bar line{stroke:currentColor;stroke-width:2;vector-effect:non-scaling-stroke}
.bar .zero{stroke:var(--soft);stroke-dasharray:3 3;stroke-width:1}
.bar rect{fill:var(--open);opacity:.55}.good .bar rect{fill:var(--good)}.bad .bar rect{fill:var(--bad)}
.good .figures b{color:var(--good)}.bad .figures b{color:var(--bad)}
.ends{display:flex;justify-content:space-between;font-size:.75rem;color:var(--soft)}
.pair{display:grid;grid-template-columns:repeat(auto-fit,minmax(16rem,1fr));gap:1rem}
.wide{overflow-x:auto}table{border-collapse:collapse;width:100%;font-size:.9rem;margin-top:.5rem}
td,th{border-bottom:1px solid var(--line);padding:.35rem .6rem;text-align:left;vertical-align:top}
td:nth-child(3),td:nth-child(4){font-variant-numeric:tabular-nums;white-space:nowrap}
.chosen td{font-weight:600}
code{font:.9em ui-monospace,monospace;background:var(--back);border:1px solid var(--line);border-radius:5px;
padding:.05em .35em}
@media print{body{background:none}header,section{break-inside:avoid}}
"""
