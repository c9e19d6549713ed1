"""The test report: one JSON model; HTML, Markdown, JUnit and the screen are renderings of it."""

from harness.report.console import print_summary
from harness.report.diff import diff_reports, render_diff
from harness.report.model import SCHEMA, build
from harness.report.write import latest_report, load_report, next_folder, render_all, write_report

__all__ = [
    "SCHEMA",
    "build",
    "diff_reports",
    "latest_report",
    "load_report",
    "next_folder",
    "print_summary",
    "render_all",
    "render_diff",
    "write_report",
]
