from __future__ import annotations

import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from bench import chart, report  # noqa: E402 (after the line above)
from bench.chart import Bar, Panel  # noqa: E402
from bench.measure import Options, Results, Size  # noqa: E402
from bench.report import MARK, Row  # noqa: E402
from bench.ways import WAYS, chosen, source_of  # noqa: E402
from bench.writing import in_batches  # noqa: E402

from chromactl.sample import Sample  # noqa: E402

SVG = "{http://www.w3.org/2000/svg}"


def went(*seconds: float, memory: float = 100e6, transforming: float = 0.1) -> list[dict[str, Any]]:
    phases = [
        {"name": "import", "seconds": 5.0},
        {"name": "transform", "seconds": transforming / 2},
        {"name": "validate", "seconds": transforming / 2},
    ]
    return [{"seconds": s, "wall": s + 1, "peak_memory_bytes": memory, "phases": phases} for s in seconds]


def results(large: Size | None = None, /, **ways: list[dict[str, Any]]) -> Results:
    machine = {"cores": 2, "python": "3.11.7", "chroma": {"target": "1.5.9", "client": "1.5.9", "sources": ["0.6.3"]}}
    named = {name.replace("__", ".").replace("_", "-"): measured for name, measured in ways.items()}
    options = Options(Size(9832, 768), 3, tuple(named), large)
    return Results(machine, options, (2000, 2), {"2000 x 2": [5.1, 5.0]}, {"inserts": went(5, 4, 9), **named})


def found(measured: Results, start: str) -> Row:
    (row,) = (row for row in report.rows(measured) if row.way.startswith(start))
    return row


def test_a_ratio_is_one_of_medians() -> None:
    row = found(results(migrate_1__5__9=went(6, 20, 6.5)), "chromactl migrate, from 1.5.9")
    assert (row.median, row.fastest, row.value, row.met) == (6.5, 6, "1.30", True)


@pytest.mark.parametrize(("seconds", "met"), [(7.0, True), (7.01, False)])
def test_the_target_is_judged_before_rounding(seconds: float, met: bool) -> None:
    row = found(results(migrate_path=went(seconds)), "chromactl migrate, from a copied")
    assert (row.value, row.met) == ("1.40", met)


def test_the_naive_way_has_no_target() -> None:
    row = found(results(naive_0__6__3=went(15)), "naive")
    assert (row.value, row.target, row.met) == ("3.00", "", None)


@pytest.mark.parametrize(("seconds", "met"), [(5.0, True), (5.01, False)])
def test_a_validation_is_compared_with_the_import_before_it(seconds: float, met: bool) -> None:
    measured = results(validate_1__5__9=[{**entry, "import": 5.0} for entry in went(4, seconds, 9, memory=301e6)])
    row = found(measured, "chromactl validate")
    assert (row.median, row.value, row.target, row.met) == (seconds, "1.00", "≤ 1.00 of the import", met)
    row = found(measured, "peak memory, validating")
    assert (row.value, row.target, row.met) == ("301 MB", "≤ 300 MB", False)


def test_the_share_of_transform_and_validate() -> None:
    row = found(results(migrate_1__5__9=went(5, transforming=0.3)), "transform and validate")
    assert (row.value, row.met) == ("6.0%", False)


def test_the_export_is_compared_with_the_fastest_reader_of_the_same_server() -> None:
    measured = results(
        export_1__5__9=went(1.0),
        read_1__5__9_client=went(1.5),
        **{"read_1__5__9_ids_4": went(0.8), "read_0__6__3_client": went(0.1)},
    )
    assert (found(measured, "chromactl's export").value, found(measured, "chromactl's export").met) == ("0.80", False)
    assert found(measured, "REST, by ids").value == "1.00"
    assert found(measured, "Chroma's client, pages of 1,000, from 1.5.9").value == "0.53"


def test_an_export_without_readers_beside_it_is_not_judged() -> None:
    assert found(results(export_1__5__9=went(1.0)), "chromactl's export").met is None


def test_the_peak_is_the_highest_of_all_rounds() -> None:
    measured = results(migrate_1__5__9=[*went(6, memory=200e6), *went(6, memory=301e6)])
    row = found(measured, "peak memory")
    assert (row.value, row.met) == ("301 MB", False)


def test_a_large_set_is_compared_with_the_small_one() -> None:
    measured = results(
        Size(200_000, 384),
        migrate_1__5__9=went(6, memory=200e6),
        large_inserts=went(100),
        large_migrate=went(119, memory=241e6),
    )
    slower, larger = report.rows(measured)[-2:]
    assert (slower.value, slower.target, slower.met) == ("1.19", "≤ 1.20, as with 9,832 x 768", True)
    assert (larger.value, larger.met) == ("241 MB, 1.21 of the smaller set's", False)


def test_only_what_was_measured_has_a_row() -> None:
    (row,) = report.rows(results())
    assert row.way == "bare inserts: batches of 2,000, 2 writers (the best of the grid)"


def test_the_table_has_straight_columns() -> None:
    measured = results(migrate_1__5__9=went(6), again_1__5__9=went(6))
    _, head, *lines = report.table(measured, report.rows(measured))
    assert head.split()[:3] == ["way", "median", "s"]
    at = head.index("target")
    targets = [line[at - 2 :] for line in lines if "≤" in line]
    assert targets
    assert all(target.startswith("  ≤") for target in targets)
    assert any(line.endswith("NO") for line in lines)


BEGIN, END = f"<!-- {MARK} -->", "<!-- end of measured -->"


def test_only_what_is_between_the_markers_is_replaced() -> None:
    page = f"# Before\n\n{BEGIN}\nold\n{END}\n\nafter\n"
    once = report.replace_measured(page, "new")
    assert once == f"# Before\n\n{BEGIN}\n\nnew\n\n{END}\n\nafter\n"
    assert report.replace_measured(once, "new") == once


@pytest.mark.parametrize("page", ["", BEGIN, f"{END}\n{BEGIN}", f"{BEGIN}{BEGIN}{END}"])
def test_a_page_without_a_place_for_it_is_refused(page: str) -> None:
    with pytest.raises(ValueError, match="the page needs one line"):
        report.replace_measured(page, "new")


def test_the_page_of_the_documentation_has_a_place_for_it() -> None:
    page = (ROOT / "docs" / "benchmarks.md").read_text(encoding="utf-8")
    assert "| a |" in report.replace_measured(page, "| a |")


def test_the_markdown_has_the_table_and_the_picture() -> None:
    measured = results(migrate_1__5__9=went(6))
    text = report.markdown(measured, report.rows(measured), "chart.svg")
    assert "](chart.svg)" in text
    assert "| chromactl migrate, from 1.5.9 | 6.00 | 6.00 | 1.20 | ≤ 1.40 of the inserts | yes |" in text
    assert "](" not in report.markdown(measured, report.rows(measured), None)


def test_the_chart_is_xml_and_its_bars_are_in_proportion() -> None:
    bars = [Bar("a <b> & c", 1.0, "1.00", False), Bar("ours", 2.0, "2.00", True)]
    tree = ElementTree.fromstring(chart.svg([Panel("T", bars, 1.4, "target"), Panel("U", bars)]))  # noqa: S314 (ours)
    one, two, *_ = (float(rect.attrib["width"]) for rect in tree.iter(f"{SVG}rect"))
    assert two == pytest.approx(2 * one, abs=0.2)
    texts = [text.text for text in tree.iter(f"{SVG}text")]
    assert texts.count("a <b> & c") == 2
    assert "target 1.40" in texts
    assert len(list(tree.iter(f"{SVG}line"))) == 1


def test_nothing_is_drawn_outside_of_the_chart() -> None:
    measured = results(**{name.replace(".", "__").replace("-", "_"): went(9) for name in WAYS if name != "inserts"})
    tree = ElementTree.fromstring(chart.svg(report.panels(measured)))  # noqa: S314 (ours)
    *_, width, height = map(float, tree.attrib["viewBox"].split())
    for rect in tree.iter(f"{SVG}rect"):
        assert float(rect.attrib["x"]) + float(rect.attrib["width"]) <= width
        assert float(rect.attrib["y"]) + float(rect.attrib["height"]) <= height


def test_a_chart_of_nothing_measurable() -> None:
    ElementTree.fromstring(chart.svg([Panel("T", [Bar("a", 0.0, "0", True)])]))  # noqa: S314 (ours)


def test_ways_are_chosen_by_how_their_names_begin() -> None:
    assert chosen([]) == tuple(WAYS)
    assert chosen(["naive", "export-0.6.3"]) == ("inserts", "naive-1.5.9", "naive-0.6.3", "export-0.6.3")
    assert chosen(["exact"]) == ("inserts", "migrate-0.6.3", "exact-0.6.3")
    assert chosen(["validate"]) == ("inserts", "migrate-1.5.9", "validate-1.5.9")
    with pytest.raises(ValueError, match="--ways mig: no such way"):
        chosen(["mig"])


def test_where_a_way_reads() -> None:
    assert [source_of(way) for way in ("inserts", "migrate-path", "read-1.5.9-ids-4")] == [None, "path", "1.5.9"]


def test_records_are_cut_into_batches_in_their_order() -> None:
    parts = list(Sample(1300, 4).batches("sergio_corpus"))
    batches = list(in_batches(parts, 300))
    assert [len(batch) for batch in batches][:-1] == [300] * (len(batches) - 1)
    assert [record for batch in batches for record in batch.ids] == [record for part in parts for record in part.ids]
    assert list(in_batches([], 300)) == []
