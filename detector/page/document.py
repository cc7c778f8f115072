"""A page around its sections: the style that all pages share."""

from __future__ import annotations

import html
from collections.abc import Iterable

from detector.page.palette import variables

_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title>
<meta name="viewport" content="width=device-width, initial-scale=1"><meta name="color-scheme" content="light dark">
<style>
:root {{ color-scheme: light dark; {light}; --page: #fff; --box: #f4f6f8; --rule: #c6ccd2; --faint: #eceff1;
  --warn: #fdf3e4; }}
@media (prefers-color-scheme: dark) {{ :root {{ {dark}; --page: #14181c; --box: #1e242a; --rule: #3d4750;
  --faint: #262d34; --warn: #3a2d16; }} }}
body {{ font: 15px/1.5 system-ui, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; color: var(--ink);
  background: var(--page); max-width: 60rem; margin: 2.5rem auto 4rem; padding: 0 1.2rem; }}
h1 {{ font-size: 1.7rem; margin: 0 0 .2rem; }} h2 {{ font-size: 1.15rem; margin: 2.2rem 0 .4rem; }}
h3 {{ font-size: .95rem; font-weight: 600; margin: 1rem 0 .2rem; overflow-wrap: anywhere; }}
.lead {{ color: var(--soft); margin: 0 0 1.4rem; }} p {{ margin: .3rem 0 .8rem; }}
ul {{ margin: 0; padding-left: 1.2rem; }}
.pictures {{ display: flex; flex-wrap: wrap; gap: .8rem; }}
.pictures figure {{ margin: 0; width: 6.4rem; }} .pictures figcaption {{ font-size: .75rem; overflow-wrap: anywhere; }}
.pictures img, .grid img {{ image-rendering: pixelated; display: block; width: 100%; margin-bottom: .25rem; }}
.grid div {{ display: flex; gap: .25rem; }} .grid img {{ width: 4.4rem; }}
.facts {{ display: grid; grid-template-columns: repeat(3, 1fr); gap: .7rem; margin: 1.2rem 0; }}
.facts div {{ background: var(--box); border-radius: .5rem; padding: .6rem .8rem; }}
.facts b {{ display: block; font-size: 1.2rem; font-weight: 600; }}
.facts span {{ color: var(--soft); font-size: .85rem; }}
.warning {{ background: var(--warn); border-left: 4px solid #d58a1c; padding: .5rem .8rem; margin: .8rem 0; }}
@media (max-width: 40rem) {{ .facts {{ grid-template-columns: 1fr; }} }}
svg {{ width: 100%; height: auto; display: block; }}
.heat {{ display: block; margin: -.15rem -.3rem; padding: .15rem .3rem; border-radius: .2rem; }}
.key {{ font-size: .85rem; color: var(--soft); }} .key span {{ margin-right: 1.2rem; overflow-wrap: anywhere; }}
.key b {{ display: inline-block; width: 1rem; height: .2rem; margin-right: .4rem; vertical-align: middle; }}
table {{ border-collapse: collapse; width: 100%; font-size: .88rem; font-variant-numeric: tabular-nums; }}
th {{ text-align: left; color: var(--soft); font-weight: 600; border-bottom: 1px solid var(--rule); }}
td, th {{ padding: .22rem .7rem .22rem 0; }} td {{ border-bottom: 1px solid var(--faint); }}
.top {{ vertical-align: top; white-space: nowrap; }}
.n {{ text-align: right; }} .bar {{ width: 9rem; }}
.bar i {{ display: block; height: .6rem; background: var(--c0); border-radius: 2px; min-width: 1px; }}
code {{ font-size: .85em; overflow-wrap: anywhere; }} .wide {{ overflow-x: auto; }}
{style}</style></head><body>
{body}
</body></html>
"""


def page(title: str, body: Iterable[str], style: str = "") -> str:
    """The text of a page. ``title`` is plain text, ``body`` HTML, ``style`` CSS beyond what all pages share."""
    light, dark = variables()
    return _PAGE.format(title=html.escape(title), light=light, dark=dark, style=style, body="\n".join(body))
