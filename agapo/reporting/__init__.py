"""The page that shows a run, `report.html`, and the one that lays several beside each other."""

from agapo.reporting.page import compare_runs, report_run, try_report

__all__ = ["compare_runs", "report_run", "try_report"]
