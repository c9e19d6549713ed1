"""A person's answers: asked on a page of this machine, kept for these pixels, judged after."""

import json
import socket
import threading
import urllib.error
import urllib.parse
import urllib.request
from concurrent.futures import ThreadPoolExecutor

import pytest

from harness.report.model import build
from harness.report.review import accept, keep, questions, review_page
from harness.report.review_server import Form
from harness.report.sheets import store_image
from harness.verify.engine import judge_cases
from harness.verify.loader import load_spec
from pipeline.errors import InputError

PATH = "AG-00-10/background/looked-at"
NAMES = ["visit-images/1/1", "visit-images/2/1"]


@pytest.fixture
def spec():
    return load_spec()


@pytest.fixture
def folder(context, spec):
    """A report with the contact sheet of the two visit images."""
    path = context.space.root / "reports" / "latest"
    (path / "evidence").mkdir(parents=True)
    images = [
        {
            "caption": f"visit {v} detector 1",
            **store_image(b"\x89PNG %d" % v, path / "evidence"),
        }
        for v in (1, 2)
    ]
    made = build(
        "camp-001", spec, context, judge_cases(spec, context, only=[PATH]), sheets={PATH: images}
    )
    (path / "report.json").write_text(json.dumps(made))
    return path


@pytest.fixture
def asked(spec, context, folder):
    return [q for q in questions(spec, context, folder) if q.path == PATH]


def filled(**more):
    return {"inspector": "A. Person", **dict.fromkeys(NAMES, "none"), **more}


def verdict(spec, context):
    (case,) = judge_cases(spec, context, only=[PATH])
    return next(c for i in case.items for c in i.checks if c.path == PATH)


def test_answers_are_what_the_check_reads(spec, context, folder, asked):
    assert verdict(spec, context).observation.outcome == "not_run"
    answers = accept(asked, filled(**{NAMES[1]: "minor"}))

    (path,) = keep(context.space.root, answers, "2026-01-01T00:00:00+00:00")

    assert path == context.space.root / "inspections" / "visit-images.yaml"
    got = verdict(spec, context)
    assert got.measurement.value == 1.0
    assert got.measurement.failing == ({"visit": 2, "detector": 1, "level": 1},)
    assert got.measurement.evidence[0].title == "answers of A. Person"
    evidence = [i["sha256"] for i in asked[0].images]
    assert all(digest in path.read_text() for digest in evidence)


def test_answers_do_not_count_for_other_pixels(spec, context, asked):
    keep(context.space.root, accept(asked, filled()), "2026-01-01T00:00:00+00:00")
    with context.space.visit_image(1, 1).open("ab") as stream:
        stream.write(b"\0")

    assert "other pixels" in verdict(spec, context).reason


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"inspector": " "}, "name of the inspector"),
        ({"inspector": "x" * 201}, "name of the inspector"),
        ({NAMES[0]: "fine"}, "visit-images/1/1 is unanswered"),
        ({"visit-images/9/9": "none"}, "'visit-images/9/9' was not asked"),
    ],
)
def test_a_form_that_is_not_complete_is_refused(asked, change, words):
    with pytest.raises(InputError, match=words):
        accept(asked, filled(**change))


def test_a_report_of_another_state_is_refused(spec, context, folder):
    report = json.loads((folder / "report.json").read_text())
    next(p for p in report["chain"] if p["of"] == "catalogue")["sha256"] = "0" * 64
    (folder / "report.json").write_text(json.dumps(report))

    with pytest.raises(InputError, match="another state of the catalogue"):
        questions(spec, context, folder)


def test_the_page_asks_about_every_unit_and_escapes(asked, folder):
    page = review_page(asked, folder, '"><script>', "/token/")

    assert all(page.count(f'name="{name}" value="none"') == 1 for name in NAMES)
    assert page.count("data:image/png;base64,") == 2
    assert "<script>" not in page


@pytest.fixture
def form():
    """A form that is served, and what it accepted."""
    taken = []

    def accepted(fields):
        if "name" not in fields:
            raise InputError("name is missing")
        taken.append(dict(fields))
        return "kept <b>"

    made = Form(lambda action: f"<!DOCTYPE html>{action}", accepted)
    with ThreadPoolExecutor(1) as pool:
        ended = pool.submit(made.serve, 30.0)
        yield made, taken, ended
        if not ended.done():
            send(made.address, b"name=end")


def send(address, data=None, **headers):
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    request = urllib.request.Request(address, data=data, headers=names)
    try:
        with urllib.request.urlopen(request, timeout=20) as answer:
            return answer.status, answer.read().decode(), answer.headers
    except urllib.error.HTTPError as err:
        return err.code, err.read().decode(), err.headers


def test_a_form_is_taken_once_and_ends_the_server(form):
    made, taken, ended = form

    status, page, headers = send(made.address)
    assert (status, page) == (200, "<!DOCTYPE html>" + urllib.parse.urlparse(made.address).path)
    assert "default-src 'none'" in headers["Content-Security-Policy"]
    assert send(made.address, b"other=1")[0] == 400  # the form stays open
    status, page, _ = send(made.address, b"name=A+B&x=%3C")

    assert (status, page) == (200, "<!DOCTYPE html><p>kept &lt;b&gt;</p>")
    assert ended.result(20) is True
    assert taken == [{"name": "A B", "x": "<"}]
    with pytest.raises(urllib.error.URLError):
        send(made.address)


def test_strangers_are_refused(form):
    made, taken, ended = form
    base = made.address.split("/", 3)
    other = "/".join([*base[:3], "guess", ""])

    assert send(other)[0] == send(other, b"name=x")[0] == 404
    assert send(made.address, b"name=x", Host="evil.example")[0] == 403
    assert send(made.address, b"name=x", Origin="http://evil.example")[0] == 403
    assert send(made.address, b"name=x", Origin="null")[0] == 403
    assert send(made.address, b"n" * 2_000_000)[0] == 413
    assert taken == []
    assert not ended.done()


def test_a_visitor_who_goes_away_does_not_end_it(form, capfd):
    made, taken, ended = form
    port = urllib.parse.urlparse(made.address).port
    path = urllib.parse.urlparse(made.address).path
    for words in (b"", b"GET / HTTP/1.1\r\n", b"nonsense\r\n\r\n"):
        with socket.create_connection(("127.0.0.1", port)) as visitor:
            visitor.sendall(words)
    with socket.create_connection(("127.0.0.1", port)) as visitor:
        visitor.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")  # a reset
        start = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Length: 99\r\n\r\nna"
        visitor.sendall(start.encode())

    assert send(made.address)[0] == 200
    assert not ended.done()
    assert taken == []
    assert capfd.readouterr().err == ""


def test_nobody_answers_and_it_ends_by_itself():
    made = Form(lambda action: "", lambda fields: "")
    waiting = threading.Thread(target=made.serve, args=(0.0,))
    waiting.start()
    waiting.join(20)
    assert not waiting.is_alive()
    assert made.address.startswith("http://127.0.0.1:")
