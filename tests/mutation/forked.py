"""pytest in a forked process: all tests of some files, with a trace of their lines, or some up to one that fails."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any


class Tests:
    """What pytest runs in a child: tests in a given order, or all of them with a trace; writes what came of them."""

    def __init__(self, report: Path, order: list[str] | None, traced: set[str]) -> None:
        self.report, self.order, self.traced = report, order, traced
        self.found: dict[str, dict[str, Any]] = {}
        self.lines: set[tuple[str, int]] = set()

    def pytest_collection_modifyitems(self, items: list) -> None:
        if self.order is not None:
            places = {name: place for place, name in enumerate(self.order)}
            items[:] = sorted((item for item in items if item.nodeid in places), key=lambda item: places[item.nodeid])

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        self.lines.clear()
        self.found[nodeid] = {"seconds": 0.0, "failed": False}
        if self.traced:
            # Lines that a test runs in threads of its own are its lines, too.
            threading.settrace(self._call)
            sys.settrace(self._call)

    def pytest_runtest_logreport(self, report: Any) -> None:
        found = self.found[report.nodeid]
        found["seconds"] += report.duration
        found["failed"] |= report.failed

    def pytest_runtest_logfinish(self, nodeid: str) -> None:
        sys.settrace(None)
        threading.settrace(None)  # type: ignore[arg-type]  # which is how it is switched off
        self.found[nodeid]["lines"] = sorted(self.lines)

    def pytest_sessionfinish(self) -> None:
        self.report.write_text(json.dumps(self.found))

    def _call(self, frame: Any, event: str, argument: Any) -> Any:
        return self._line if frame.f_code.co_filename in self.traced else None

    def _line(self, frame: Any, event: str, argument: Any) -> Any:
        self.lines.add((frame.f_code.co_filename, frame.f_lineno))
        return self._line


def run_tests(copy: Path, files: list[str], timeout: float, order: list[str] | None, traced: set[str]) -> tuple:
    """Exit status of pytest in a forked process (None: no end in time), and what came of each test."""
    report = copy / "report.json"
    report.unlink(missing_ok=True)
    child = os.fork()
    if child == 0:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        os.setsid()
        output = os.open(copy / "output.txt", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(output, 1)
        os.dup2(output, 2)
        sys.dont_write_bytecode = not traced
        if not traced:
            os.environ["PYTHONDONTWRITEBYTECODE"] = "1"
        options = ["-q", "-p", "no:cacheprovider", f"--basetemp={copy / 'tmp'}", *([] if traced else ["-x"])]
        import pytest

        status = 99
        try:
            status = int(pytest.main([*options, *files], plugins=[Tests(report, order, traced)]))
        finally:
            sys.stdout.flush()
            os._exit(status)
    deadline, status = time.monotonic() + timeout, None
    try:
        while status is None and time.monotonic() < deadline:
            done, code = os.waitpid(child, os.WNOHANG)
            status = os.waitstatus_to_exitcode(code) if done else time.sleep(0.02)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child, signal.SIGKILL)  # it, or what it leaves behind
        if status is None:
            os.waitpid(child, 0)
    return status, json.loads(report.read_text()) if report.exists() else {}
