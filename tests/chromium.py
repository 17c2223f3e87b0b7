"""Debian's Chromium, driven over its DevTools protocol through a pipe: no port, no driver, no other package.

Refuses to wait for ever, and to leave a browser behind."""

import base64
import fcntl
import json
import os
import select
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update", "--disable-dev-shm-usage", "--mute-audio",
    "--force-color-profile=srgb", "--hide-scrollbars", "--use-fake-device-for-media-stream",
    "--use-fake-ui-for-media-stream", "--remote-debugging-pipe",
)  # fmt: skip
SECONDS = 30.0
KEYS = {"Tab": 9, "Enter": 13, "Escape": 27, " ": 32}
TROUBLE = {"error", "warning"}


class Gone(Exception):
    """The browser said no, ended, or did not answer in time."""


class Browser:
    """The pipe to one Chromium: calls, and what it tells without being asked, by session."""

    def __init__(self, write: int, read: int) -> None:
        self._write, self._read = write, read
        self._rest = b""
        self._next = 0
        self._answers: dict[int, dict[str, Any]] = {}
        self.told: list[dict[str, Any]] = []

    def call(self, method: str, session: str | None = None, **parameters: Any) -> dict[str, Any]:
        """What the browser answers to this method."""
        self._next += 1
        asked: dict[str, Any] = {"id": self._next, "method": method, "params": parameters}
        os.write(self._write, json.dumps(asked | ({"sessionId": session} if session else {})).encode() + b"\0")
        end = time.monotonic() + SECONDS
        while self._next not in self._answers:
            if not self.listen(end - time.monotonic()):
                raise Gone(f"{method}: no answer")
        answer = self._answers.pop(self._next)
        if "error" in answer:
            raise Gone(f"{method}: {answer['error']['message']}")
        result: dict[str, Any] = answer["result"]
        return result

    def listen(self, seconds: float) -> bool:
        """Take in what comes within this time; false where nothing does."""
        if seconds <= 0 or not select.select([self._read], [], [], seconds)[0]:
            return False
        data = os.read(self._read, 1 << 20)
        if not data:
            raise Gone("the browser ended")
        *whole, self._rest = (self._rest + data).split(b"\0")
        for message in map(json.loads, whole):
            if "id" in message:
                self._answers[message["id"]] = message
            else:
                self.told.append(message)
        return True


class Page:
    """One tab. What its console, its scripts and its policy complained of is in `troubles()`."""

    def __init__(self, browser: Browser, wide: int, high: int, dark: bool) -> None:
        self.browser = browser
        self._target = browser.call("Target.createTarget", url="about:blank")["targetId"]
        self.session = browser.call("Target.attachToTarget", targetId=self._target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "DOM", "Performance"):
            self.call(f"{domain}.enable")
        self.size(wide, high)
        self.call(
            "Emulation.setEmulatedMedia",
            features=[{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}],
        )

    def close(self) -> None:
        """Close the tab."""
        self.browser.call("Target.closeTarget", targetId=self._target)

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """A method of this tab."""
        return self.browser.call(method, self.session, **parameters)

    def size(self, wide: int, high: int) -> None:
        """Make the window so large."""
        self.call("Emulation.setDeviceMetricsOverride", width=wide, height=high, deviceScaleFactor=1, mobile=False)

    def go(self, url: str) -> None:
        """Load this address."""
        found = self.call("Page.navigate", url=url)
        if "errorText" in found:
            raise Gone(f"{url}: {found['errorText']}")

    def get(self, script: str) -> Any:
        """The value of an expression in the page; a promise is waited for."""
        found = self.call("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        if "exceptionDetails" in found:
            raise Gone(found["exceptionDetails"].get("exception", {}).get("description", "the script failed"))
        return found["result"].get("value")

    def wait(self, script: str, seconds: float = 15.0) -> Any:
        """The expression's value once it is true; a page that is still loading may make it fail."""
        end, value, why = time.monotonic() + seconds, None, ""
        while not value:
            if time.monotonic() > end:
                raise Gone(f"never true: {script} {why}; it says: {self.get('document.body.innerText')[:1500]}")
            self.browser.listen(0.05)
            try:
                value = self.get(f"(value => value instanceof Node || value)({script})")
            except Gone as error:
                why = str(error)
        return value

    def text(self, selector: str) -> str:
        """What an element says."""
        return str(self.get(f"document.querySelector({json.dumps(selector)}).textContent.trim()"))

    def upload(self, selector: str, path: Path) -> None:
        """Choose a file in a form."""
        root = self.call("DOM.getDocument")["root"]["nodeId"]
        node = self.call("DOM.querySelector", nodeId=root, selector=selector)["nodeId"]
        self.call("DOM.setFileInputFiles", nodeId=node, files=[str(path)])

    def press(self, key: str, modifiers: int = 0) -> None:
        """Press and release a key; modifiers: 2 is Ctrl, 8 is Shift."""
        code = KEYS[key]
        text = {"Enter": "\r", " ": " "}.get(key, "") if not modifiers else ""
        about = {"key": key, "code": "Space" if key == " " else key, "windowsVirtualKeyCode": code}
        down = "keyDown" if text else "rawKeyDown"
        self.call("Input.dispatchKeyEvent", type=down, text=text, modifiers=modifiers, **about)
        self.call("Input.dispatchKeyEvent", type="keyUp", modifiers=modifiers, **about)

    def type(self, text: str) -> None:
        """Write into what has the focus."""
        self.call("Input.insertText", text=text)

    def picture(self, path: Path, whole: bool = True) -> None:
        """A screenshot, of the whole page or of what the window shows."""
        wide, high = self.get("[innerWidth, document.documentElement.scrollHeight]")
        clip = {"clip": {"x": 0, "y": 0, "width": wide, "height": high, "scale": 1}} if whole else {}
        found = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=whole, **clip)
        path.write_bytes(base64.b64decode(found["data"]))

    def spent(self) -> dict[str, float]:
        """Chromium's own numbers, such as ScriptDuration and LayoutDuration in seconds."""
        found = self.call("Performance.getMetrics")["metrics"]
        return {one["name"]: one["value"] for one in found}

    def troubles(self) -> list[str]:
        """Errors and warnings so far: exceptions, the console, the network, the policy."""
        self.get("1")
        found: list[str] = []
        for one in self.browser.told:
            if one.get("sessionId") != self.session:
                continue
            said, method = one["params"], one["method"]
            if method == "Runtime.exceptionThrown":
                details = said["exceptionDetails"]
                found.append(details.get("exception", {}).get("description") or details["text"])
            elif method == "Log.entryAdded" and said["entry"]["level"] in TROUBLE:
                found.append(f"{said['entry']['text']} {said['entry'].get('url', '')}".strip())
            elif method == "Runtime.consoleAPICalled" and said["type"] in TROUBLE:
                found.append(" ".join(str(value.get("value", "")) for value in said["args"]))
        return found


Open = Callable[..., Page]


@contextmanager
def chromium() -> Iterator[Open]:
    """A browser of its own; gives what opens a tab: `open(url, wide=1280, high=900, dark=False)`."""
    assert CHROMIUM is not None
    with ExitStack() as stack:
        home = stack.enter_context(tempfile.TemporaryDirectory(ignore_cleanup_errors=True))
        (theirs, ours), (mine, its) = os.pipe(), os.pipe()
        read, write = (fcntl.fcntl(number, fcntl.F_DUPFD, 20) for number in (theirs, its))  # out of the way of 3 and 4
        command = [CHROMIUM, *FLAGS, f"--user-data-dir={home}/profile", "about:blank"]
        process = subprocess.Popen(
            ["bash", "-c", f'exec "$@" 3<&{read} 4>&{write} {read}<&- {write}>&-', "chromium", *command],
            pass_fds=(read, write),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "HOME": home},
        )
        for number in (theirs, its, read, write):
            os.close(number)
        stack.callback(os.close, mine)
        stack.callback(_end, process)
        stack.callback(os.close, ours)
        browser = Browser(ours, mine)
        stack.callback(_close, browser)

        def opened(url: str, wide: int = 1280, high: int = 900, dark: bool = False) -> Page:
            page = Page(browser, wide, high, dark)
            page.go(url)
            return page

        yield opened


def _close(browser: Browser) -> None:
    try:
        browser.call("Browser.close")
    except (Gone, OSError):  # it is gone already
        return


def _end(process: "subprocess.Popen[bytes]") -> None:
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait(10)
