"""Makes of a table's results what is read: numbers with intervals, plots, one page.

content: all numbers;  text_tables, explanations: as words;  markdown, comma_separated, latex, page: as files;
figures, drawing: plots with matplotlib;  ledger: the runs behind published numbers.
"""

from ltkd.report.content import CellValue, Column, Difference, Report, Row, make_report
from ltkd.report.entries import Entry, entries_of
from ltkd.report.write import write_report

__all__ = ["CellValue", "Column", "Difference", "Entry", "Report", "Row", "entries_of", "make_report", "write_report"]
