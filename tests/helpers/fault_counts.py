"""The table of faults that a test run prints, counted from its reports."""

import pytest

from tests.system.fault.harness import OUTCOMES


def faults_of(reports: list[pytest.TestReport]) -> dict[str, dict]:
    """The rows of the table. Of the parameters of one case the first report counts: give those that failed first."""
    rows: dict[str, dict] = {}
    counted = set()
    for report in reports:
        for name, value in report.user_properties:
            if name == "fault":
                group, kind, once = value
                found = {kind if report.passed else "failure": 1}
                if once and (report.nodeid.partition("::")[0], once) in counted:
                    found = {}
                counted.add((report.nodeid.partition("::")[0], once))
                add_faults(rows, group, found, [] if report.passed else [report.nodeid])
            elif name == "faults":
                for group, row in value.items():
                    add_faults(rows, group, row, row["failures"])
    return rows


def add_faults(rows: dict[str, dict], group: str, counts: dict[str, int], failures: list[str]) -> None:
    row = rows.setdefault(group, {"cases": 0, **dict.fromkeys(OUTCOMES, 0), "failures": []})
    for kind in OUTCOMES:
        row[kind] += counts.get(kind, 0)
        row["cases"] += counts.get(kind, 0)
    row["failures"] += failures
