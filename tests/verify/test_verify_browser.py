"""Pages in a browser: no sideways scroll, no request, no word on the console."""

import html
import json
import shutil
import subprocess
from pathlib import Path

import pytest

from harness.catalog import connect
from harness.report import write_report
from harness.report.model import build
from harness.report.vcd import control, histories
from harness.report.vcd_formats import FORMATS
from harness.verify.engine import judge_cases
from harness.verify.loader import load_spec
from harness.verify.paths import TESTCASES
from harness.verify.pin import pin

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
WIDTHS = (390, 1280)
FRAME = """<!doctype html><body>
<iframe id="page" width="{width}" height="2500" srcdoc="{page}"></iframe>
<script>
const page = document.getElementById("page");
page.onload = () => {{
  const inner = page.contentWindow, root = inner.document.documentElement;
  const wide = [...inner.document.body.querySelectorAll("*")].filter(
    (e) => e.getBoundingClientRect().right > root.clientWidth + 1 && !scrolls(e.parentElement));
  const found = {{
    wide: root.scrollWidth - root.clientWidth,
    by: wide.slice(0, 5).map((e) => [e.tagName, e.className, e.textContent.slice(0, 60)]),
    fetched: inner.performance.getEntriesByType("resource").map((r) => r.name)
      .filter((n) => !n.startsWith("data:")),
  }};
  const told = document.createElement("pre");
  told.id = "found";
  told.textContent = JSON.stringify(found);
  document.body.append(told);
}};
function scrolls(element) {{
  for (let e = element; e; e = e.parentElement)
    if (getComputedStyle(e).overflowX === "auto") return true;
  return false;
}}
</script>"""


@pytest.fixture(scope="session")
def browser():
    found = next((p for p in map(shutil.which, BROWSERS) if p), None)
    if found is None:
        pytest.skip(f"none of {', '.join(BROWSERS)} on this machine")
    return found


def looked_at(browser, page: str, width: int, folder: Path):
    """What a browser finds in a page of some width, and what it says on the console."""
    path = folder / "frame.html"
    path.write_text(FRAME.format(width=width, page=html.escape(page)))
    words = ["--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", "--dump-dom"]
    words += [f"--user-data-dir={folder / 'browser'}", "--disable-background-networking"]
    done = subprocess.run(
        [browser, *words, "--virtual-time-budget=20000", path.as_uri()],
        capture_output=True,
        text=True,
        check=True,
    )
    told = done.stdout.rpartition('<pre id="found">')[2].partition("</pre>")[0]
    said = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    return json.loads(html.unescape(told)), said


@pytest.fixture
def report(context):
    """A report with long words, wide tables and an image."""
    with connect(context.space.catalog) as catalog:
        exposures = f"read_parquet('{context.space.exposures}')"
        catalog.execute(f"insert into exposure by name from {exposures}")
    pin(context.space)
    spec = load_spec()
    paths = ["AG-00-05", "AG-00-25/unique", "AG-00-30", "AG-00-00/tests"]
    made = build("camp-001", spec, context, judge_cases(spec, context, only=paths))
    made["people"]["recommendations"] = "unbroken" * 40
    folder = context.space.root / "reports" / "camp-001"
    write_report(json.loads(json.dumps(made)), folder, TESTCASES)
    return folder


def test_pages_fit_a_telephone_and_a_desk(browser, report, tmp_path):
    (night, *_) = (report / "nights").iterdir()
    pages = {path.name: path.read_text() for path in (report / "report.html", night)}
    pages["vcd.html"] = FORMATS["html"](control(histories([report]), {}))
    for name, page in pages.items():
        for width in WIDTHS:
            found, said = looked_at(browser, page, width, tmp_path)
            assert found["wide"] == 0, (name, width, found["by"])
            assert (found["fetched"], said) == ([], [])


@pytest.mark.parametrize(
    ("body", "key"),
    [
        ('<p style="width: 2000px">wide</p>', "wide"),
        ('<img src="http://localhost:9/x.png">', "fetched"),
        ("<script>console.error('loud')</script>", "said"),
    ],
)
def test_the_browser_does_notice(browser, tmp_path, body, key):
    found, said = looked_at(browser, f"<!doctype html>{body}", 390, tmp_path)

    assert said if key == "said" else found[key]
