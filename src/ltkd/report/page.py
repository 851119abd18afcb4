"""A report as one HTML page that needs nothing else: no script, no network, readable on paper and on a telephone."""

import base64
from html import escape

from ltkd.report.content import Column, Report
from ltkd.report.drawing import Picture
from ltkd.report.explanations import about_correction, about_overview, explanations
from ltkd.report.text_tables import TextTable, corrected_tables, difference_table, main_table, overview_table

STYLE = """
:root { color-scheme: light; }
body { font: 16px/1.5 system-ui, -apple-system, "Segoe UI", "Helvetica Neue", Arial, sans-serif; color: #1a1a1a;
  background: #fff; max-width: 62rem; margin: 0 auto; padding: 1.5rem 1rem 4rem; }
h1 { font-size: 1.6rem; line-height: 1.25; margin: 0 0 1rem; }
h2 { font-size: 1.25rem; margin: 2.5rem 0 .75rem; border-bottom: 1px solid #bbb; padding-bottom: .2rem; }
h3 { font-size: 1rem; margin: 1.75rem 0 .4rem; }
dl.facts { display: grid; grid-template-columns: max-content 1fr; gap: .15rem 1rem; margin: 0 0 1.5rem;
  font-size: .875rem; }
dl.facts dt { color: #555; }
dl.facts dd { margin: 0; }
.scroll { overflow-x: auto; margin: .75rem 0; }
table { border-collapse: collapse; font-size: .875rem; font-variant-numeric: tabular-nums; }
th, td { padding: .3rem .7rem; text-align: right; white-space: nowrap; }
th { border-top: 2px solid #333; border-bottom: 1px solid #333; font-weight: 600; vertical-align: bottom;
  white-space: normal; }
th.name, td.name { text-align: left; }
tbody tr:last-child td { border-bottom: 2px solid #333; }
tr.method td { background: #eef4fa; }
tr.method td.name { font-weight: 600; }
tr.section td { border-top: 1px solid #bbb; }
.notes { font-size: .875rem; color: #333; max-width: 50rem; }
figure { margin: 1rem 0 2rem; break-inside: avoid; }
figure img { width: 100%; max-width: 54rem; height: auto; display: block; }
figcaption { font-size: .875rem; color: #333; max-width: 50rem; margin-top: .4rem; }
.missing li { font-size: .875rem; overflow-wrap: anywhere; }
@media (max-width: 40rem) { dl.facts { grid-template-columns: 1fr; } dl.facts dt { margin-top: .4rem; } }
@media print { body { max-width: none; padding: 0; font-size: 10pt; } .scroll { overflow: visible; }
  h2, h3 { break-after: avoid; } tr { break-inside: avoid; } table, dl.facts, .notes, figcaption { font-size: 8pt; }
  th, td { padding: .2rem .4rem; white-space: normal; } tr.method td { background: none; } }
"""


def html(report: Report, pictures: list[list[Picture]]) -> str:
    """Writes the page. `pictures` has a list for each column of the report."""
    facts = "".join(f"<dt>{escape(key)}</dt><dd>{escape(value)}</dd>" for key, value in report.facts.items())
    parts = [f"<h1>{name_html(report.table.title)}</h1>", f'<dl class="facts">{facts}</dl>']
    if report.missing:
        count = f"<strong>Missing: {len(report.missing)}</strong>"
        parts.append(f'<p class="notes">{count}, listed at the end.</p>')
    overview = overview_table(report)
    if overview is not None:
        parts += ["<h2>Overview</h2>", table_html(overview), note_html(about_overview(report))]
    for index, (column, drawn) in enumerate(zip(report.columns, pictures, strict=True)):
        parts += [f"<h2>{name_html(column.label)}</h2>"] * bool(column.label)
        parts += _numbers(report, column)
        parts += [note_html(line) for line in explanations(report)] if index == 0 else []
        parts += _corrections(report, column)
        parts += [figure_html(picture) for picture in drawn]
    if report.missing:
        lines = "".join(f"<li>{escape(line)}</li>" for line in report.missing)
        parts.append(f'<h2>Missing</h2>\n<ul class="missing">{lines}</ul>')
    return document(report.table.title, "\n".join(parts))


def document(title: str, body: str, style: str = "") -> str:
    """A whole page; `style` is added to the common one."""
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{STYLE}{style}</style>\n</head>\n"
        f"<body>\n{body}\n</body>\n</html>\n"
    )


def _numbers(report: Report, column: Column) -> list[str]:
    parts = [table_html(main_table(report, column))]
    differences = difference_table(report, column)
    if differences is not None:
        parts += ["<h3>Difference to the best baseline</h3>", table_html(differences)]
    return parts


def _corrections(report: Report, column: Column) -> list[str]:
    tables = corrected_tables(report, column)
    if not tables:
        return []
    blocks = [
        block
        for kind, table in tables.items()
        for block in (table_html(table), note_html(about_correction(report, kind)))
    ]
    return ["<h3>Corrected after training</h3>", *blocks]


def name_html(text: str) -> str:
    return escape(text.replace("->", "→"))


def note_html(text: str) -> str:
    return f'<p class="notes">{escape(text)}</p>'


def figure_html(picture: Picture) -> str:
    # an image and not inline SVG: the ids of several drawings on one page would get into each other's way
    source = f"data:image/svg+xml;base64,{base64.b64encode(picture.svg).decode()}"
    title, caption = escape(picture.title), escape(picture.caption)
    return (
        f'<h3>{title}</h3>\n<figure><img alt="{title}. {caption}" src="{source}">'
        f"<figcaption>{caption}</figcaption></figure>"
    )


def table_html(table: TextTable) -> str:
    """Writes a table in a box that scrolls on a narrow screen; a line between teacher, baselines and methods."""
    head = "".join(_cell("th", [text], i < table.names) for i, text in enumerate(table.headers))
    rows, previous = [], None
    for texts, role in zip(table.body, table.roles, strict=True):
        section = " section" if previous not in (None, role) else ""
        cells = "".join(_cell("td", table.lines(text, i), i < table.names) for i, text in enumerate(texts))
        rows.append(f'<tr class="{role}{section}">{cells}</tr>')
        previous = role
    body = "\n".join(rows)
    return f'<div class="scroll"><table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody>\n</table></div>'


def _cell(tag: str, lines: list[str], names_the_row: bool) -> str:
    kind = ' class="name"' if names_the_row else ""
    return f"<{tag}{kind}>{'<br>'.join(map(name_html, lines))}</{tag}>"
