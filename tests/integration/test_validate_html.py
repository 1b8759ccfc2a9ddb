"""The HTML report in a real browser: legible at desktop and phone width, in both colour schemes, without network."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

import pytest
from playwright.sync_api import Browser, Page

from chromactl import cli
from support.browser import browser
from support.command import clean_environment, close_log_files
from support.databases import new_database, same_database
from support.servers import Server

Scheme = Literal["light", "dark"]
WIDTHS = {"desktop": (1280, 800), "phone": (390, 844)}
LONG = "sergio_humor_" + "with_a_name_of_WIDE_LETTERS_that_does_not_end_" * 3 + "x"
LOST = [f"corpus_{number:06}" for number in range(1, 31)]
COLUMNS = ("collection", "id", "what", "field", "expected", "actual")
CONTRAST = 4.5

# Elements that show text of their own, with their colour and the nearest background that is painted behind them.
_TEXTS = """() => {
  const rgb = text => text.match(/[\\d.]+/g).map(Number);
  const shows = element => [...element.childNodes].some(one => one.nodeType === 3 && one.textContent.trim());
  const behind = element => {
    for (let one = element; one; one = one.parentElement) {
      const found = rgb(getComputedStyle(one).backgroundColor);
      if (!(one instanceof SVGElement) && (found.length < 4 || found[3] > 0)) return found;
    }
    throw new Error("nothing painted behind " + element.outerHTML);
  };
  return [...document.body.querySelectorAll("*")].filter(shows)
    .filter(element => !(element instanceof SVGTitleElement)).map(element => {
    const style = getComputedStyle(element);
    const inSvg = element instanceof SVGElement;
    return {
      text: element.textContent.trim().slice(0, 60),
      ink: rgb(inSvg ? style.fill : style.color),
      paper: behind(element),
      size: parseFloat(style.fontSize) * (inSvg ? element.getScreenCTM().a : 1),
    };
  });
}"""

# Of every chart its box, and those of its labels and bars.
_CHARTS = """() => [...document.querySelectorAll("svg")].map(svg => {
  const box = element => {
    const {left, top, right, bottom} = element.getBoundingClientRect();
    return {left, top, right, bottom, text: element.textContent};
  };
  return {
    ...box(svg),
    labels: [...svg.querySelectorAll("text")].map(box),
    bars: [...svg.querySelectorAll("rect")].map(box),
  };
})"""

# What is wider than its own box without being allowed to scroll there.
_OVERFLOWING = """() => [...document.body.querySelectorAll("*")]
  .filter(one => !one.closest(".scroll") && !(one instanceof SVGElement))
  .filter(one => one.getBoundingClientRect().right > document.documentElement.clientWidth + 0.5)
  .map(one => one.outerHTML.slice(0, 120))"""


@dataclass(frozen=True, slots=True)
class Report:
    """A validation's report: the page, and what its JSON says."""

    page: Path
    json: dict[str, Any]


@pytest.fixture(scope="module")
def reports(modern: Server, receiving: Server, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Report]:
    """Of one migration, the report when it was good, and the one after it was spoiled in many places."""
    folder = tmp_path_factory.mktemp("reports")
    source = new_database(modern)
    target = same_database(receiving, source.name)
    found: dict[str, Report] = {}

    def run(code: int, *arguments: str) -> None:
        try:
            assert cli.run(list(arguments)) == code
        finally:
            close_log_files()

    def validate(status: str, code: int) -> None:
        place = ["--old-db-url", source.url, "--new-db-url", target.url, "--limit-ms", "60000"]
        output = folder / status / "report.md"
        run(code, "validate", *place, *common, "--output", str(output))
        found[status] = Report(output.with_suffix(".html"), json.loads(output.with_suffix(".json").read_text()))
        assert found[status].json["overall_status"] == status

    common = ["--database", source.name, "--rename", f"sergio_humor={LONG}"]
    with clean_environment(folder):
        run(0, "sample", "--url", source.url, "--database", source.name, "--chunks", "400", "--dim", "64")
        run(0, "migrate", "--source-url", source.url, "--target-url", target.url, *common)
        validate("PASSED", 0)
        jokes = target.records(LONG)
        one, other = (jokes[record] for record in list(jokes)[:2])
        target.delete("sergio_corpus", *LOST)
        target.delete(LONG, one.id)
        odd = {**(one.metadata or {}), "category": "<b>" + "unbroken" * 40, "if_citation_uri": "none"}
        target.upsert(LONG, replace(one, embedding=other.embedding, metadata=odd))
        validate("FAILED", 4)
    return found


@pytest.fixture(scope="module")
def chrome(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with browser(tmp_path_factory.mktemp("browser") / "profile") as started:
        yield started


@pytest.mark.parametrize("scheme", get_args(Scheme))
@pytest.mark.parametrize("device", WIDTHS)
@pytest.mark.parametrize("status", ["PASSED", "FAILED"])
def test_a_report_is_legible(
    reports: dict[str, Report], chrome: Browser, tmp_path: Path, status: str, device: str, scheme: Scheme
) -> None:
    width, height = WIDTHS[device]
    report = reports[status]
    said: list[str] = []
    requested: list[str] = []
    with chrome.new_context(viewport={"width": width, "height": height}, color_scheme=scheme) as context:
        page = context.new_page()
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("request", lambda request: requested.append(request.url))
        page.goto(report.page.as_uri(), wait_until="networkidle")
        page.screenshot(path=tmp_path / f"{status}-{device}-{scheme}.png", full_page=True)
        assert said == []
        assert [url for url in requested if not url.startswith("data:")] == [report.page.as_uri()]
        _assert_fits(page, width)
        _assert_verdict(page, report)
        _assert_charts(page, report)
        _assert_offenders(page, report)
        _assert_contrast(page, scheme)


def _assert_fits(page: Page, width: int) -> None:
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.evaluate(_OVERFLOWING) == []


def _assert_verdict(page: Page, report: Report) -> None:
    assert page.locator("h1").is_visible()
    assert report.json["overall_status"] in page.locator("h1").inner_text()
    for test in report.json["tests"]:
        heading = page.locator("summary", has_text=test["title"])
        assert heading.is_visible()
        assert test["status"] in heading.inner_text()
        assert test["summary"] in heading.inner_text()
        assert (heading.locator("..").get_attribute("open") is not None) is (test["status"] != "PASSED")
    for reason in report.json["rollback_reasons"].values():
        assert page.locator("header").get_by_text(reason).first.is_visible()


def _assert_charts(page: Page, report: Report) -> None:
    charts = page.evaluate(_CHARTS)
    assert len(charts) == 1 + 3 + len(report.json["collections"])
    for chart in charts:
        assert chart["right"] - chart["left"] > 200
        assert chart["bottom"] - chart["top"] > 100
        assert chart["labels"]
        assert chart["bars"]
        for label in chart["labels"]:
            assert _within(label, chart), label
            assert not [other for other in chart["labels"] if other is not label and _overlap(label, other)], label
            assert not [bar for bar in chart["bars"] if _overlap(label, bar)], label
        for bar in chart["bars"]:
            assert _within(bar, chart), bar


def _assert_offenders(page: Page, report: Report) -> None:
    rows = page.locator("tbody tr")
    first = [one for test in report.json["tests"] for one in test["offenders"]["first"]]
    assert rows.count() == len(first)
    for row, one in zip(rows.all(), first, strict=True):
        assert row.is_visible()
        shown = row.locator("td").all_inner_texts()
        assert [text for text in shown if text] == [one[name] for name in COLUMNS if one[name]]
    if report.json["overall_status"] == "FAILED":
        assert len(report.json["tests"][0]["offenders"]["first"]) == 20
        assert page.get_by_text("and 10 more").is_visible()


def _assert_contrast(page: Page, scheme: Scheme) -> None:
    texts = page.evaluate(_TEXTS)
    assert len(texts) > 50
    weak = [(one["text"], round(ratio, 2)) for one in texts if (ratio := _ratio(one["ink"], one["paper"])) < CONTRAST]
    assert weak == []
    assert [one["text"] for one in texts if one["size"] < 10] == []
    assert (_luminance(texts[0]["paper"]) < 0.2) is (scheme == "dark")


def _luminance(colour: list[float]) -> float:
    """Relative luminance as WCAG 2 defines it, of sRGB 0 to 255."""
    linear = [
        value / 255 / 12.92 if value / 255 <= 0.04045 else ((value / 255 + 0.055) / 1.055) ** 2.4 for value in colour
    ]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def _ratio(ink: list[float], paper: list[float]) -> float:
    """The contrast ratio as WCAG 2 defines it, 1 to 21."""
    dark, light = sorted((_luminance(ink), _luminance(paper)))
    return (light + 0.05) / (dark + 0.05)


def _within(inner: dict[str, float], outer: dict[str, float]) -> bool:
    slack = 0.5
    return (
        inner["left"] >= outer["left"] - slack
        and inner["top"] >= outer["top"] - slack
        and inner["right"] <= outer["right"] + slack
        and inner["bottom"] <= outer["bottom"] + slack
    )


def _overlap(one: dict[str, float], other: dict[str, float]) -> bool:
    slack = 1.0
    return (
        one["left"] < other["right"] - slack
        and other["left"] < one["right"] - slack
        and one["top"] < other["bottom"] - slack
        and other["top"] < one["bottom"] - slack
    )
