"""Headless Chromium without a network, driven through its DevTools protocol by a pipe: a message ends with NUL."""

import base64
import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)
OPTIONS = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars")
# Nothing but this machine is there.
OFFLINE = ("--proxy-server=127.0.0.1:9", "--disable-background-networking", "--no-first-run")


class Page:
    """A page in a browser of its own.

    Attributes:
        requested: the addresses that it has asked for.
        said: what its console has as errors, and what the browser refused to do.
    """

    def __init__(self, profile: Path, width: int = 1100, height: int = 1500) -> None:
        self.requested: list[str] = []
        self.said: list[str] = []
        self._number = 0
        (their_end, self._to), (self._from, other_end) = os.pipe(), os.pipe()
        # Chromium reads from 3 and writes to 4.
        script = f'exec "$0" "$@" 3<&{their_end} 4>&{other_end}'
        options = (*OPTIONS, *OFFLINE, f"--user-data-dir={profile}", "--remote-debugging-pipe", "about:blank")
        self._process = subprocess.Popen(
            ["bash", "-c", script, BROWSER, *options], pass_fds=(their_end, other_end), stderr=subprocess.DEVNULL
        )
        os.close(their_end)
        os.close(other_end)
        self._rest = b""
        self._session: str | None = None
        target = next(one for one in self.call("Target.getTargets")["targetInfos"] if one["type"] == "page")
        found = self.call("Target.attachToTarget", targetId=target["targetId"], flatten=True)
        self._session = found["sessionId"]
        for domain in ("Page", "Network", "Runtime", "Log"):
            self.call(f"{domain}.enable")
        self.resize(width, height)

    def close(self) -> None:
        self._process.terminate()
        self._process.wait(30)
        os.close(self._to)
        os.close(self._from)

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """What a method of the protocol returns."""
        self._number += 1
        order = {"id": self._number, "method": method, "params": parameters}
        if self._session:
            order["sessionId"] = self._session
        os.write(self._to, json.dumps(order).encode() + b"\0")
        while (answer := self._read()).get("id") != self._number:
            self._note(answer)
        assert "error" not in answer, answer
        return answer["result"]

    def _read(self) -> dict[str, Any]:
        while b"\0" not in self._rest:
            found = os.read(self._from, 1 << 20)
            assert found, "the browser has ended"
            self._rest += found
        message, _, self._rest = self._rest.partition(b"\0")
        return json.loads(message)

    def _note(self, event: dict[str, Any]) -> None:
        found = event.get("params", {})
        if event.get("method") == "Network.requestWillBeSent":
            self.requested.append(found["request"]["url"])
        elif event.get("method") == "Log.entryAdded" and found["entry"]["level"] == "error":
            self.said.append(f"{found['entry']['text']} {found['entry'].get('url', '')}")
        elif event.get("method") == "Runtime.exceptionThrown":
            self.said.append(str(found["exceptionDetails"].get("exception", found["exceptionDetails"])))

    def resize(self, width: int, height: int, mobile: bool = False) -> None:
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=mobile)

    def open(self, address: str) -> None:
        self.call("Page.navigate", url=address)

    def ask(self, expression: str) -> Any:
        """The value of an expression of JavaScript."""
        return self.call("Runtime.evaluate", expression=expression, returnByValue=True)["result"].get("value")

    def wait(self, expression: str, is_there: Callable[[Any], Any] = bool, seconds: float = 60) -> Any:
        """The value of an expression once it is what it should be."""
        deadline = time.monotonic() + seconds
        while not is_there(found := self.ask(expression)):
            assert time.monotonic() < deadline, f"{expression}: {found}; {self.said}"
            time.sleep(0.1)
        return found

    def give_file(self, selector: str, file: Path) -> None:
        """Choose a file in an input."""
        found = self.call("Runtime.evaluate", expression=f"document.querySelector({json.dumps(selector)})")["result"]
        self.call("DOM.setFileInputFiles", objectId=found["objectId"], files=[str(file)])

    def screenshot(self, file: Path) -> None:
        file.write_bytes(base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"]))
