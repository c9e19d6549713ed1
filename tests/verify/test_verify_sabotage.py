"""Defects are planted in copies, found by the checks they name, and never harm the original."""

import pytest

from harness.system.hashes import file_hash
from harness.verify.context import Unit
from harness.verify.copy import Copy
from harness.verify.defect import Defect
from harness.verify.defects import load_defects
from harness.verify.loader import load_spec
from harness.verify.sabotage import matrix_fault, sabotage, sealed
from harness.verify.verdict import Verdict
from pipeline.errors import ConfigError

DEFECTS = load_defects()


def test_there_are_enough_of_them():
    assert len(DEFECTS) >= 25


def test_every_defect_names_a_check_that_exists():
    paths = set(load_spec().criteria)

    assert {d.check for d in DEFECTS.values()} <= paths


def test_every_defect_says_what_it_does():
    assert all(d.text and not d.text.endswith(".") for d in DEFECTS.values())


def test_a_copy_can_be_spoilt_without_harm_to_the_original(space, tmp_path):
    units = (Unit(1, 1), Unit(2, 1))
    before = {p: p.read_bytes() for p in space.root.rglob("*") if p.is_file()}
    copy = Copy.of(space, tmp_path / "copy", units, ())
    names = ("overstated-noise", "truncated", "lost-visit-image", "unexplained-warning")
    for name in (*names, "duplicate-objects", "constant-counts"):
        DEFECTS[name].plant(copy)
    spoilt = copy.space.visit_image(1, 1).read_bytes()
    copy.close()

    assert {p: p.read_bytes() for p in space.root.rglob("*") if p.is_file()} == before
    assert spoilt != before[space.visit_image(1, 1)]
    assert not copy.space.root.exists()


def test_links_save_what_is_not_spoilt(space, tmp_path):
    copy = Copy.of(space, tmp_path / "copy", (), ())

    inodes = [s.visit_image(1, 1).stat().st_ino for s in (space, copy.space)]
    catalogs = [s.catalog.stat().st_ino for s in (space, copy.space)]

    assert inodes[0] == inodes[1]
    assert catalogs[0] != catalogs[1]


def test_an_unknown_defect_is_refused(space):
    with pytest.raises(ConfigError, match=r"swaped-template.*expected swap-template"):
        sabotage(space.root, only=["swaped-template"])


@pytest.mark.slow
def test_some_defects_end_to_end_in_two_processes(space):
    names = (
        "duplicate-objects", "lost-object", "truncated", "lost-visit-image", "duplicate-sources",
    )  # fmt: skip

    result = sabotage(space.root, only=names, jobs=2)

    assert [d["id"] for d in result["defects"]] == list(names)
    assert [d["id"] for d in result["defects"] if not d["caught"]] == []
    assert result["unharmed"]["caught_by"] == []


def test_there_are_a_hundred_and_fifty_in_families():
    families = {d.family for d in DEFECTS.values()}

    assert len(DEFECTS) >= 150
    assert {"measured", "custody", "scaled", "summaries", "copies", "files"} <= families
    assert sum(d.faint is not None for d in DEFECTS.values()) >= 20


def test_a_graded_defect_has_one_name_for_each_amplitude():
    names = [n for n in DEFECTS if n.startswith("flux-scale")]

    assert names == ["flux-scale-0.01", "flux-scale-0.03", "flux-scale--0.03", "flux-scale-1"]
    assert [DEFECTS[n].faint is None for n in names] == [False, True, True, True]
    assert DEFECTS[names[0]].text == "Make all fluxes of sources larger by a share of 0.01"


def test_a_matrix_that_was_edited_or_is_of_another_state_does_not_count(space):
    spec = load_spec()
    row = {"id": "x", "caught": True, "caught_by": ["a"], "expected_check": "a"}
    content = {"defects": [row], "catalogue": file_hash(space.catalog), "spec_hash": spec.hash}
    good = sealed(content)
    forged = sealed({**content, "defects": [{**row, "caught_by": []}]})

    assert matrix_fault(good, space, spec) == ""
    assert "does not have the hash" in matrix_fault({**good, "defects": []}, space, spec)
    assert "did not catch" in matrix_fault(forged, space, spec)
    assert "catalogue" in matrix_fault(sealed({**content, "catalogue": "0"}), space, spec)
    assert "specification" in matrix_fault(sealed({**content, "spec_hash": "0"}), space, spec)
    assert "does not have the hash" in matrix_fault([], space, spec)


def test_a_check_that_cannot_judge_the_unharmed_copy_notices_nothing():
    from harness.verify.sabotage import _row

    tried = Defect("d", "d", "A/b/c", lambda copy: None, lambda copy: None)
    for before, after, caught in (
        (Verdict.PASS, Verdict.FAIL, True),
        (Verdict.PASS, Verdict.PASS, False),
        (Verdict.NOT_RUN, Verdict.NOT_RUN, False),
        (Verdict.NOT_RUN, Verdict.FAIL, False),
    ):
        row = _row(tried, {"A/b/c": before}, {"A/b/c": after}, {"A/b/c": after})
        assert (row["caught"], row["faint_caught"]) == (caught, caught)


def test_a_matrix_says_which_checks_are_never_alone():
    from harness.verify.sabotage import _idle

    rows = [{"caught_by": ["a"]}, {"caught_by": ["a", "b"]}, {"caught_by": ["b", "c"]}]

    assert _idle(rows, {"a", "b", "c", "d"}) == {"b": 2, "c": 1, "d": 0}
