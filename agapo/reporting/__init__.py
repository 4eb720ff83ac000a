"""The page that shows a run, `report.html`, and the one that lays several beside each other."""

from agapo.reporting.page import are_evaluations, compare_runs, report_run, try_report

__all__ = ["are_evaluations", "compare_runs", "report_run", "try_report"]
