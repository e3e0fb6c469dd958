"""The documentation site: it builds without a warning and without a network, and every page opens in a browser."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import threading
from functools import partial
from html.parser import HTMLParser
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urldefrag, urljoin

import pytest

ROOT = Path(__file__).parents[1]
ABORTED = "net::ERR_ABORTED"
BROWSERS = ("chromium", "chromium-browser", "google-chrome")

#: Tells Python's own sockets that there is no network; a program that needs one then fails.
OFFLINE = """
import runpy, socket, sys
def refuse(*_, **__): raise OSError("no network while the documentation is built")
socket.socket.connect = socket.create_connection = socket.getaddrinfo = refuse
sys.argv = ["mkdocs", *sys.argv[1:]]
runpy.run_module("mkdocs", run_name="__main__")
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    """Build the site as `poe docs` does, in another folder."""
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-c", OFFLINE, "build", "--quiet", "--strict", "--site-dir", str(folder)],
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    return folder


class Links(HTMLParser):
    """Collect what a page points to, and the places within it that others may point to."""

    def __init__(self) -> None:
        super().__init__()
        self.targets: list[str] = []
        self.places: set[str] = set()

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        """Note `href`, `src` and `id`."""
        for name, value in attributes:
            if name == "id" and value:
                self.places.add(value)
            elif name in {"href", "src"} and value and not (tag == "link" and "canonical" in dict(attributes).values()):
                self.targets.append(value)


def read_links(page: Path) -> Links:
    """Parse a page of the site."""
    links = Links()
    links.feed(page.read_text())
    return links


def test_no_link_is_broken(site):
    """Each link, picture, script and style of each page is a file of the site, each anchor a place on its page."""
    pages = {page: read_links(page) for page in site.rglob("*.html") if page.name != "404.html"}
    assert len(pages) > 25
    for page, links in pages.items():
        base = f"/{page.relative_to(site).as_posix()}"
        for link in links.targets:
            if re.match(r"https?:|mailto:|data:", link):
                continue
            path, anchor = urldefrag(urljoin(base, link))
            target = site / unquote(path).lstrip("/")
            target = target / "index.html" if target.is_dir() else target
            assert target.is_file(), f"{base}: {link}"
            if anchor and target in pages:
                assert unquote(anchor) in pages[target].places, f"{base}: {link}"


def test_pages_load_nothing_from_elsewhere(site):
    """Scripts, styles, fonts and pictures come from the site itself: reading it tells nobody."""
    for page in site.rglob("*.html"):
        foreign = re.findall(
            r'<(?:script|img|iframe)[^>]+src="https?:|<link[^>]+stylesheet[^>]+"https?:', page.read_text()
        )
        assert not foreign, page


@pytest.fixture(scope="module")
def address(site) -> str:
    """Serve the site on a free port of this machine."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_) -> None:
            """Print nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(site)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_every_page_opens_in_a_browser(site, address):
    """Chromium shows each page, its pictures included, without an error on the console or a failed request."""
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None and not os.environ.get("CI"):
        pytest.skip("no Chromium here; .ci/run installs it")
    from playwright.sync_api import sync_playwright

    assert browser is not None
    pages = sorted(page.parent.relative_to(site).as_posix() for page in site.rglob("index.html"))
    wrong: list[str] = []
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=browser, args=["--no-sandbox"])
        tab = chromium.new_page(viewport={"width": 1280, "height": 1000})
        tab.on("console", lambda message: wrong.append(message.text) if message.type in {"error", "warning"} else None)
        tab.on("pageerror", lambda error: wrong.append(str(error)))
        # Leaving a page cuts off what it still fetches; what is missing has an answer, 404.
        tab.on("requestfailed", lambda request: wrong.extend([request.url] * (request.failure != ABORTED)))
        tab.on(
            "response", lambda answer: wrong.append(f"{answer.status}: {answer.url}") if answer.status >= 400 else None
        )
        for page in pages:
            tab.goto(f"{address}/{page}/", wait_until="load")
            assert tab.locator("h1").first.is_visible(), page
            broken = tab.eval_on_selector_all("img", "all => all.filter(i => !i.naturalWidth).map(i => i.src)")
            assert (wrong, broken) == ([], []), page
            if folder := os.environ.get("MAXCONV_SCREENSHOTS"):
                tab.screenshot(path=f"{folder}/{page.replace('/', '-')}.png", full_page=True)
        chromium.close()
    assert len(pages) > 25
