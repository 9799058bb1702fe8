"""Dagster's page in a headless Chromium, with the verbs of the people who use it."""

from __future__ import annotations

import os
import re
import shutil
import time
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from playwright.sync_api import Error, Locator, Page, expect, sync_playwright

#: The browser; the distribution's, since playwright's own would be one more download.
CHROMIUM = os.environ.get("MLOPS_CHROMIUM") or "/usr/bin/chromium"
#: What keeps it to itself, and lets it run as root and without a graphics card.
ARGUMENTS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
#: Generous: the machine may be busy with others.
PATIENCE_SECONDS = 180.0
#: For what the page has to show by itself.
DRAWING_SECONDS = 60.0
#: Of the window, in pixels.
WIDTH, HEIGHT = 1400, 800
LOCATION = "/locations/mlops_assets"


@contextmanager
def chromium() -> Generator[Page, None, None]:
    """A page of a browser, which ends with it."""
    if shutil.which(CHROMIUM) is None:
        raise FileNotFoundError(
            f"no {CHROMIUM}: install it with `make browser`, or set MLOPS_CHROMIUM to another one"
        )
    expect.set_options(timeout=1000 * DRAWING_SECONDS)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        try:
            context = browser.new_context(
                viewport={"width": WIDTH, "height": HEIGHT}, color_scheme="light", timezone_id="UTC"
            )
            page = context.new_page()
            page.set_default_timeout(1000 * DRAWING_SECONDS)
            yield page
        finally:
            browser.close()


class DagsterPage:
    """What people do on Dagster's page. Every verb waits until the page shows it done."""

    def __init__(self, page: Page, url: str, screenshots: Path) -> None:
        """Begin.

        Args:
            page: of the browser.
            url: of Dagster's webserver.
            screenshots: folder for them; it is made.
        """
        self.page, self._url, self._screenshots = page, url, screenshots
        #: What the page asked of other servers.
        self.foreign: list[str] = []
        page.on("request", lambda request: self._note(request.url))

    def _note(self, url: str) -> None:
        if not url.startswith((self._url, "data:", "blob:")):
            self.foreign.append(url)

    def open(self, path: str) -> None:
        """Go to a path of the page."""
        self.page.goto(self._url + path)

    def resize(self, height: int = HEIGHT) -> None:
        """Make the window so many pixels high."""
        self.page.set_viewport_size({"width": WIDTH, "height": height})

    def screenshot(self, name: str) -> None:
        """Keep what the window shows as a PNG."""
        self._screenshots.mkdir(parents=True, exist_ok=True)
        self.page.mouse.move(0, 0)
        self.page.wait_for_timeout(500)  # fonts, and what fades
        self.page.screenshot(path=self._screenshots / f"{name}.png", animations="disabled")

    def graph(self, model: str) -> None:
        """The graph of one model's assets, from top to bottom, with owners, checks and kinds."""
        self.open(f"{LOCATION}/asset-groups/{model}")
        page = self.page
        expect(page.get_by_text("registered_model").first).to_be_visible()
        self._button("config").click()
        facets = page.get_by_role("dialog")
        for name in ("Owner", "Partitions", "Latest event", "Automation"):
            facets.locator("label").filter(has_text=re.compile(f"^{name}$")).click()
        facets.get_by_role("button", name="Save").click()
        expect(facets).to_be_hidden()
        page.get_by_text("Hide navigation").click()
        self._button("settings").click()
        page.get_by_text("Change graph to vertical orientation").click()
        # The page keeps all that, and draws anew so that the graph fills the window.
        page.reload()
        expect(page.get_by_text("registered_model").first).to_be_visible()

    def _button(self, icon: str) -> Locator:
        """Buttons of the main part that are drawn as an icon."""
        named = self.page.get_by_role("img", name=icon, exact=True)
        return self.page.get_by_role("button").filter(has=named).last

    def switch_sensor(self, name: str, state: Literal["on", "off"]) -> None:
        """Switch a sensor with its toggle."""
        self.open(f"{LOCATION}/sensors/{name}")
        row = self.page.get_by_role("row").filter(
            has=self.page.get_by_role("cell", name="Running", exact=True)
        )
        toggle = row.get_by_role("checkbox")
        expect(toggle).to_be_checked(checked=state == "off")
        row.locator("label").click()
        expect(toggle).to_be_checked(checked=state == "on")

    def launch_job(self, job: str) -> None:
        """Launch a job with one click, and wait for the run's success."""
        self.open(f"{LOCATION}/jobs/{job}")
        self.page.get_by_role("button", name="Materialize all").first.click()
        self.page.get_by_text("View", exact=True).click()
        self.succeeds()

    def succeeds(self) -> None:
        """Wait until the run that the page shows has succeeded."""
        status = self.page.get_by_text(re.compile("^(Success|Failure|Canceled)$")).first
        status.wait_for(timeout=1000 * PATIENCE_SECONDS)
        assert status.inner_text() == "Success", self.page.inner_text("body")

    def asset(self, model: str, name: str, view: str = "overview") -> None:
        """Open the page of an asset."""
        self.open(f"/assets/{model}/{name}?view={view}")

    def open_checks(self, model: str, name: str) -> int:
        """Open the checks of an asset; how many there are."""
        self.asset(model, name, "checks")
        heading = self.page.get_by_text(re.compile(r"^Checks \(\d+\)$"))
        return int(re.sub(r"\D", "", heading.inner_text()))

    def passed(self, check: str, asks: str) -> str:
        """Open one of the checks listed, wait for it to be shown as passed; all that is shown."""
        self.page.get_by_title(check, exact=True).click()
        self.page.wait_for_url(f"**checkDetail={check}")
        expect(self.page.get_by_text(asks)).to_be_visible()
        expect(self.page.get_by_text("Passed", exact=True)).to_be_visible()
        return self.page.inner_text("body")

    def open_pictures(self) -> list[tuple[int, int]]:
        """Of the asset shown, open each text until one has pictures; their sizes in pixels."""
        texts = self.page.get_by_text("[Show Markdown]")
        texts.first.wait_for()
        for index in range(texts.count()):
            texts.nth(index).click()
            dialog = self.page.get_by_role("dialog")
            pictures = dialog.locator("img[src^='data:image/png']")
            dialog.get_by_role("button", name="Close").wait_for()
            if pictures.count():
                found = pictures.evaluate_all("all => all.map(i => [i.naturalWidth, i.height])")
                return [(int(width), int(height)) for width, height in found]
            self.close()
        return []

    def close(self) -> None:
        """Close the dialog."""
        dialog = self.page.get_by_role("dialog")
        dialog.get_by_role("button", name=re.compile("^(Close|Done)$")).click()
        expect(dialog).to_be_hidden()

    def open_launchpad(self, model: str, name: str) -> Locator:
        """Open an asset's launchpad; returns its dialog, with the default config in its editor."""
        self.asset(model, name)
        button = self.page.get_by_role("button", name=re.compile("Materialize$")).first
        button.locator("xpath=../following-sibling::*//button").click()
        self.page.get_by_text("Open launchpad").click()
        dialog = self.page.get_by_role("dialog")
        expect(dialog.get_by_text("No errors")).to_be_visible()
        return dialog

    def type_config(self, launchpad: Locator, values: Mapping[str, str]) -> None:
        """Type text into fields of the config that are empty."""
        editor = launchpad.locator(".CodeMirror")
        for name, value in values.items():
            line = editor.locator(".CodeMirror-line").filter(has_text=f'{name}: ""')
            line.click()
            self.page.keyboard.press("End")
            self.page.keyboard.press("ArrowLeft")
            self.page.keyboard.type(value)
            self.page.keyboard.press("Escape")  # what it offers to complete
            expect(editor.get_by_text(value)).to_be_visible()
        for _ in range(3):  # to the text, the margin, the text: a long line scrolls the editor
            self.page.keyboard.press("Home")
        expect(self._materialize(launchpad)).to_be_enabled()

    def launch(self, launchpad: Locator) -> None:
        """Materialize with the config as it stands, and wait for the run's success."""
        self._materialize(launchpad).click()
        self.page.wait_for_url("**/runs/*")
        self.succeeds()

    @staticmethod
    def _materialize(launchpad: Locator) -> Locator:
        return launchpad.get_by_role("button", name=re.compile("Materialize$"))

    def tick_says(self, sensor: str, pattern: str) -> None:
        """Wait for a tick of a sensor that says so, in its log or as its reason; leaves it open."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while time.monotonic() < deadline:
            self.open(f"{LOCATION}/sensors/{sensor}")
            rows = self.page.get_by_role("row").filter(
                has=self.page.get_by_role("button", name="View logs")
            )
            rows.first.wait_for()
            for index in range(min(rows.count(), 6)):
                try:
                    if self._row_says(rows.nth(index), pattern):
                        return
                except Error:  # the list moved on: look at the new one
                    break
        raise AssertionError(f"no tick of {sensor} says {pattern}")

    def _row_says(self, row: Locator, pattern: str) -> bool:
        dialog = self.page.get_by_role("dialog")
        row.get_by_role("button", name="View logs").click(timeout=5000)
        settled = dialog.get_by_text(re.compile("^(No logs to display|EVENT|Event)$"))
        settled.first.wait_for(timeout=5000)
        self.page.wait_for_timeout(300)
        if re.search(pattern, dialog.inner_text()):
            return True
        self.close()
        row.get_by_text(re.compile("requested$")).last.click(timeout=5000)
        dialog.get_by_role("button", name="Close").wait_for(timeout=5000)
        self.page.wait_for_timeout(300)
        if re.search(pattern, dialog.inner_text()):
            return True
        self.close()
        return False
