"""From a table's results to what is read: numbers with intervals, figures, one page.

content: what there is to say, as numbers;  text: Markdown, CSV;  latex;  figures: matplotlib;  page: HTML.
"""

from ltkd.report.content import Column, Difference, Figure, Report, Row, make_report
from ltkd.report.entries import Entry, entries_of
from ltkd.report.write import write_report

__all__ = [
    "Column", "Difference", "Entry", "Figure", "Report", "Row", "entries_of", "make_report", "write_report",
]  # fmt: skip
