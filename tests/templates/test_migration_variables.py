"""What the role `migration` makes of a verdict and of what is to be undone: its variables, without a host."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from support.templating import value

RUN, EARLIER = "20260102T000000-bbbbbb", "20260101T000000-aaaaaa"
COMMON = {
    "migration_source": {"name": "old", "url": "http://old:8000", "token_file": ""},
    "migration_target": {"name": "new", "url": "http://new:8000", "token_file": "/etc/new.token"},
    "migration_report": {"run": RUN},
    "migration_verdict": {},
    "migration_run_as": [],
}


def said(variable: str, **more: Any) -> Any:
    return value("migration", variable, **(COMMON | more))


def verdict(status: str, run: str = RUN) -> dict[str, str]:
    return {"run": run, "overall_status": status, "report": "/logs/validation.md"}


@pytest.mark.parametrize(
    ("found", "accepted", "good"),
    [
        ({}, False, False),
        (verdict("PASSED"), False, True),
        (verdict("PASSED", EARLIER), False, False),
        (verdict("WARNING"), False, False),
        (verdict("WARNING"), "true", True),
        (verdict("WARNING", EARLIER), True, False),
        (verdict("FAILED"), True, False),
    ],
)
def test_cutover_takes_a_good_verdict_of_the_very_run(found: dict[str, str], accepted: Any, good: bool) -> None:
    assert said("__migration_verdict_is_good", migration_verdict=found, migration_accept_warnings=accepted) is good


def test_a_passed_verdict_is_not_asked_for_twice_unless_something_moved_or_the_question_changed() -> None:
    known = verdict("PASSED") | {"question": said("__migration_question")}
    unchanged = {"stdout": '{"changed": false}'}
    assert said("__migration_is_validated", migration_verdict=known, __migration_result=unchanged) is True
    for other in (
        {},
        {"__migration_result": {"stdout": '{"changed": true}'}},
        {"__migration_result": unchanged, "migration_validation_max_divergence": 0.19},
        {"__migration_result": unchanged, "migration_validation_against": "snapshot"},
        {"__migration_result": unchanged, "migration_report": {"run": EARLIER}},
        {"__migration_result": unchanged, "migration_verdict": known | {"overall_status": "WARNING"}},
    ):
        assert said("__migration_is_validated", **({"migration_verdict": known} | other)) is False


def test_every_threshold_is_an_option_of_the_validation() -> None:
    options = said("__migration_question")["options"]
    assert options == [
        "--stored-queries=20",
        "--max-data-loss=0.05",
        "--divergence-warning=0.1",
        "--max-divergence=0.2",
        "--query-divergence-warning=0.3",
        "--limit-ms=300.0",
        "--embedding-provider=hash",
    ]


def test_who_embeds_is_part_of_the_question_and_the_key_is_not() -> None:
    model = {
        "migration_embedding_provider": "openai",
        "migration_embedding_url": "http://model:8080/v1",
        "migration_embedding_model": "large",
        "migration_embedding_key_file": "/etc/model.key",
    }
    words = ["--embedding-provider=openai", "--embedding-url=http://model:8080/v1", "--embedding-model=large"]
    assert said("__migration_question", **model)["options"][-3:] == words
    assert "/etc/model.key" not in str(said("__migration_question", **model))
    assert said("__migration_embedding_key", **model) == ["--embedding-key-file", "/etc/model.key"]
    words += ["--embedding-key-file", "/etc/model.key", "--token-file", "/etc/new.token"]
    assert said("__migration_smoke", **model)[-7:] == words


@pytest.mark.parametrize(
    ("more", "way"),
    [
        ({}, ["--run", RUN]),
        ({"migration_report": {}, "migration_undone": {"run": EARLIER}}, ["--run", EARLIER]),
        ({"migration_rollback_run": EARLIER}, ["--run", EARLIER]),
        ({"migration_rollback_backup": "/backups/one"}, ["--backup-path", "/backups/one"]),
        (
            {"migration_verdict": verdict("FAILED")},
            ["--run", RUN, "--validation-report", "/logs/validation.md"],
        ),
        ({"migration_verdict": verdict("FAILED"), "migration_rollback_run": EARLIER}, ["--run", EARLIER]),
        ({"migration_verdict": verdict("WARNING")}, ["--run", RUN]),
    ],
)
def test_the_way_back(more: dict[str, Any], way: list[str]) -> None:
    assert said("__migration_way_back", **more) == way


CARRIED = {"migration_report": {"run": RUN, "carries_on": [EARLIER]}}


@pytest.mark.parametrize(
    ("more", "runs", "looked_at_later"),
    [
        ({}, [RUN], []),
        (CARRIED, [RUN, EARLIER], [EARLIER]),
        (CARRIED | {"migration_undone": {"run": "some older one"}}, [RUN, EARLIER], [EARLIER]),
        # Cut off between the two, behind both, and done before.
        (CARRIED | {"migration_undone": {"run": RUN}}, [EARLIER], []),
        ({"migration_undone": {"run": RUN}}, [RUN], []),
        ({"migration_report": {}, "migration_undone": {"run": EARLIER}}, [EARLIER], []),
        (CARRIED | {"migration_rollback_run": RUN}, [RUN], []),
        ({"migration_report": {}}, [], []),
    ],
)
def test_what_was_carried_on_is_undone_too_the_latest_first(
    more: dict[str, Any], runs: list[str], looked_at_later: list[str]
) -> None:
    assert said("__migration_undo_runs", **more) == runs
    assert said("__migration_undo_steps", ansible_check_mode=False, **more) == runs
    assert said("__migration_undo_steps", ansible_check_mode=True, **more) == (runs[:1] or [""])
    assert said("__migration_undo_later", ansible_check_mode=True, **more) == looked_at_later
    backup = more | {"migration_rollback_backup": "/backups/one"}
    assert len(said("__migration_undo_steps", ansible_check_mode=False, **backup)) == 1
    assert said("__migration_undo_later", ansible_check_mode=True, **backup) == []


def test_of_two_runs_each_is_undone_with_the_reason_and_a_report_of_its_own() -> None:
    failed = CARRIED | {"migration_verdict": verdict("FAILED")}
    for run in (RUN, EARLIER):
        words = said("__migration_rollback", __migration_run=run, **failed)
        assert words[-4:] == ["--run", run, "--validation-report", "/logs/validation.md"]
        assert words[words.index("--report-output") + 1].endswith(f"/rollback_{run}.md")


@pytest.mark.parametrize("given", [["one", "two"], "one,two"])
def test_collections_are_a_list_or_words_on_the_command_line(given: Any) -> None:
    words = said("__migration_rollback", migration_rollback_collections=given)
    assert [words[place + 1] for place, word in enumerate(words) if word == "--collection"] == ["one", "two"]
    assert words[words.index("--restore-token-file") + 1] == "/etc/new.token"


@pytest.mark.parametrize(
    ("collections", "words"),
    [
        ([], []),
        ([{"user": "ann", "project": "a", "error": "", "troubled": {}}], []),
        (
            [
                {"user": "ann", "project": "a", "error": "it is full", "troubled": {}},
                {"user": "bob", "project": "b", "error": "", "troubled": {"memory_log_7": "refused"}},
            ],
            ["ann/a: it is full", "bob/b memory_log_7: refused"],
        ),
    ],
)
def test_what_the_target_lacks_is_said_in_words(collections: list[Any], words: list[str]) -> None:
    filled = {"stdout": json.dumps({"collections": collections})}
    assert said("__migration_unindexed", __migration_filled=filled) == words


@pytest.mark.parametrize(
    ("url", "port"), [("http://new:8000", 8000), ("https://new", 443), ("http://new", 80), ("https://new:444/", 444)]
)
def test_the_port_of_the_target(url: str, port: int) -> None:
    assert said("__migration_target_port", migration_target={"url": url}) == port


def test_an_instance_that_was_filled_just_now_is_told_what_came_since_and_any_other_everything() -> None:
    assert said("__migration_replay_since") == "1970-01-01T00:00:00Z"
    assert said("__migration_replay_since", __migration_fill_began="") == "1970-01-01T00:00:00Z"
    since = said("__migration_replay_since", __migration_fill_began=str(int(time.time()) - 600))
    assert 660 <= int(since.removesuffix("s")) < 1260
