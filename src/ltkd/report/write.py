"""Writes a report's files."""

from pathlib import Path

from ltkd.files import write_bytes, write_text
from ltkd.report.comma_separated import comma_separated
from ltkd.report.content import Report
from ltkd.report.figures import draw_column
from ltkd.report.latex import latex
from ltkd.report.markdown import markdown
from ltkd.report.page import html


def write_report(report: Report, folder: Path) -> list[Path]:
    """Writes report.html, table.md, table.csv, table.tex and figures/*.svg; returns the paths in that order."""
    pictures = [draw_column(report, column) for column in report.columns]
    texts = {
        "report.html": html(report, pictures),
        "table.md": markdown(report),
        "table.csv": comma_separated(report),
        "table.tex": latex(report),
    }
    for name, text in texts.items():
        write_text(folder / name, text)
    figures = []
    for number, drawn in enumerate(pictures, 1):
        for picture in drawn:
            figures.append(folder / "figures" / f"{picture.name}{f'-{number}' if len(report.columns) > 1 else ''}.svg")
            write_bytes(figures[-1], picture.svg)
    return [*(folder / name for name in texts), *figures]
