"""What a word of the specification means, and what is wrong with what people wrote."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from harness.cli.main import execute
from harness.verify.explain import explain_word, is_word
from harness.verify.lint import read_all
from harness.verify.loader import load_spec
from harness.verify.paths import TESTCASES
from pipeline.errors import ConfigError

REPORT = {
    "campaign": "w-001",
    "cases": [
        {
            "id": "AG-00-20",
            "items": [
                {
                    "id": "epoch",
                    "checks": [
                        {"id": "tai", "verdict": "fail", "value": 3, "unit": "rows", "stderr": None}
                    ],
                }
            ],
        }
    ],
}


def test_words_of_the_specification_are_no_folders_and_no_numbers():
    words = ("AG-00-15", "AG-00-15/kernel", "AG-00-15/kernel/rerun", "DMS-REQ-0074", "W-0001")
    assert all(map(is_word, words))
    assert not any(map(is_word, ("410985", "campaigns/mini", "/data/W", "mini", ".")))


def test_every_check_and_every_requirement_can_be_explained():
    spec = load_spec()
    for case, item, check in spec.checks():
        path = f"{case.id}/{item.id}/{check.id}"
        story = explain_word(path, spec)
        assert story["check"]["shows"] == check.text
        assert story["check"]["bound"] == check.limit.text
        assert {r["id"] for r in story.get("requirements", [])} == set(item.requirements)
    for requirement in spec.requirements:
        story = explain_word(requirement.id, spec)
        assert story["requirement"]["text"] == requirement.text
        assert ("verified by" in story) != bool(requirement.deferred)


def test_what_came_out_last_stands_beside_what_is_demanded():
    spec = load_spec()
    story = explain_word("AG-00-20/epoch/tai", spec, REPORT)
    assert story["last result"] == {"verdict": "fail", "value": 3, "unit": "rows"}
    rows = explain_word("AG-00-20/epoch", spec, REPORT)["checks"]
    assert {r["check"]: r["last"] for r in rows}["AG-00-20/epoch/tai"] == "fail"


def test_a_waiver_is_explained_with_its_check(spec_folder: Path):
    spec = load_spec(spec_folder)
    story = explain_word("W-0001", spec)
    assert story["waiver"]["ticket"] == "https://example.org/1"
    assert story["check"]["path"] == "AG-00-20/epoch/tai"
    assert explain_word("AG-00-20/epoch/tai", spec)["check"]["waiver"] == "W-0001"


@pytest.fixture
def spec_folder(tmp_path: Path) -> Path:
    """The case files with one waiver."""
    folder = tmp_path / "cases"
    folder.mkdir()
    for path in TESTCASES.glob("*.yaml"):
        (folder / path.name).write_text(path.read_text(encoding="utf-8"), encoding="utf-8")
    (folder / "waivers.yaml").write_text(
        "schema: 1\nwaivers:\n  - {id: W-0001, check: AG-00-20/epoch/tai, "
        "ticket: 'https://example.org/1', reason: clock under repair, approved_by: a.person, "
        "approved_on: '2026-10-01', expires: '2027-03-31', no_worse_than: '<= 3 rows'}\n"
    )
    return folder


def test_an_unknown_word_names_the_nearest(capsys):
    with pytest.raises(ConfigError, match="did you mean DMS-REQ-0308"):
        explain_word("DMS-REQ-308", load_spec())
    assert execute(["explain", "AG-00-20/epoch/tay"]) == 2
    assert "AG-00-20/epoch/tai" in capsys.readouterr().err


def test_the_command_explains_a_check_without_a_campaign(capsys):
    assert execute(["explain", "AG-00-15/kernel/rerun", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["parameters"]["run"] == "nightjar rerun {difference}"
    assert execute(["explain", "DMS-REQ-0074"]) == 0
    assert "AG-00-15/" in capsys.readouterr().out
    assert execute(["explain", "nonsense"]) == 2
    assert "cannot explain 'nonsense'" in capsys.readouterr().err


def test_lint_names_every_mistake_of_settings_and_designs(tmp_path: Path, capsys):
    settings, design = tmp_path / "nightjar.toml", tmp_path / "study.toml"
    settings.write_text("[subtract]\nkernel_hafl = 9\n\n[campaign]\n  seed = -1\n")
    design.write_text("seed = 3\nsources = 0\n")
    found, mistakes = read_all([tmp_path, design, TESTCASES])
    assert found == [f"{TESTCASES}: no mistakes"]
    assert mistakes[0].startswith(f"{settings}:5:3 campaign.seed: ")
    assert mistakes[1].startswith(f"{settings}:2:1 subtract.kernel_hafl: unknown key")
    assert mistakes[2].startswith(f"{design}:2:1 sources: ")
    assert execute(["lint", str(tmp_path), str(design)]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 3
    settings.write_text("[campaign]\nseed = 4\n")
    assert execute(["lint", str(tmp_path)]) == 0
    assert execute(["lint"]) == 0
