from harness.verify.replay import replay


def test_the_published_verdicts_follow_from_the_published_details():
    result = replay("dmtr-53")

    derived = [c["derived"] for c in result["cases"]]

    assert derived == ["Pass", "Pass", "Partial Pass", "Fail", "Pass", "Pass"]
    assert derived == [c["published"] for c in result["cases"]]


def test_so_do_those_of_the_drafts():
    drafts = replay("dmtr-53")["drafts"]

    assert len(drafts) == 2
    for draft in drafts:
        assert [c["derived"] for c in draft["cases"]] == [c["published"] for c in draft["cases"]]
        assert [c["derived"] for c in draft["cases"]][-2:] == ["Fail", "Fail"]


def test_so_do_the_lines_of_the_release():
    words = {"PASSED": "Pass", "FAILED": "Fail", "PARTIALLY PASSED": "Partial Pass", "N/A": "N/A"}

    for case in replay("dmtr-53")["cases"]:
        for item in case["items"]:
            assert item["derived"] == words[item["published"]]
