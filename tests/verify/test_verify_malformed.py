"""Three hundred malformed files: each refused with file, line and column, exit status 2."""

from __future__ import annotations

import re

import pytest

from harness.cli.main import execute
from harness.settings import Settings
from harness.verify.loader import load_spec
from harness.verify.nodes import SpecError
from harness.verify.paths import TESTCASES
from pipeline.errors import ConfigError

from .test_verify_loader import CASE, folder  # noqa: F401

LINE = re.compile(r".*\.(yaml|toml):\d+:\d+:? \S.*")


def bomb(levels: int = 40) -> str:
    """A document of a few lines that stands for 9 ** 40 values."""
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, levels)]
    return "\n".join(lines) + "\n"


WHOLE = {
    "empty": "",
    "blank": "\n\n",
    "comment": "# nothing\n",
    "null": "null\n",
    "tilde": "~\n",
    "list": "- 1\n- 2\n",
    "word": "hello\n",
    "number": "7\n",
    "text": '"schema: 1"\n',
    "bomb": bomb(),
    "own-alias": "a: &a [*a]\n",
    "alias-of-nothing": "a: *b\n",
    "anchor": "a: &b 1\n",
    "merge": "a: {<<: {b: 1}}\n",
    "deep-list": "a: " + "[" * 5000 + "]" * 5000 + "\n",
    "deep-mapping": "a: " + "{b: " * 3000 + "1" + "}" * 3000 + "\n",
    "open-list": "a: [1\n",
    "open-mapping": "a: {b: 1\n",
    "open-quote": 'a: "b\n',
    "tab": "a:\n\t- b\n",
    "two-documents": "a: 1\n---\na: 2\n",
    "directive": "%YAML 9.9\n---\na: 1\n",
    "tag": "a: !!python/object/apply:os.system [ls]\n",
    "tag-unknown": "a: !x y\n",
    "duplicate": "schema: 1\nschema: 1\n",
    "key-list": "? [a]\n: 1\n",
    "key-null": "~: 1\n",
    "colon": "a: b: c\n",
    "percent": "a: %b\n",
    "at": "a: @b\n",
    "back-tick": "a: `b\n",
    "dash": "a: - b\n",
    "indentation": "a:\n    b: 1\n  c: 2\n",
    "escape": 'a: "\\q"\n',
    "terminal": 'a: "\\e[2J"\n',
    "right-to-left": 'a: "\\u202e"\n',
    "surrogate": 'a: "\\ud800"\n',
    "bell": 'a: "\\a"\n',
    "long-integer": "a: " + "9" * 5000 + "\n",
    "huge-float": "schema: 1e999\n",
    "version": "schema: 2\n",
}

BYTES = {
    "not-utf8": b"a: 1\nb: \xff\xfe\n",
    "utf16": "schema: 1\n".encode("utf-16"),
    "zero": b"a: 1\nb: \x00\n",
    "escape-raw": b"a: \x1b[31m\n",
    "latin1": "a: \u00e9\n".encode("latin-1"),
    "png": b"\x89PNG\r\n\x1a\n\x00\x00",
}

SCALARS = ("yes", "no", "on", "Off", "0x1f", "0b1", "0o7", "007", "1_000", "10:21:33", ".inf",
           ".nan", "~", "[]", "{}", "3.5", "-1", "2027-01-01", "''", "'  '")  # fmt: skip

KINDS = (
    "sql: {}",
    "sql: []",
    "sql: select 1",
    "sql: {population: select 1}",
    "sql: {population: selct 1, rows: select 1}",
    "sql: {population: drop table unit, rows: select 1}",
    "sql: {population: select 1, rows: copy unit to 'x'}",
    "sql: {population: select 1; select 2, rows: select 1}",
    "sql: {population: '', rows: select 1}",
    "sql: {population: select 1, rows: 'attach ''x'''}",
    "sql: {population: select 1, rows: select 1, value: select 1}",
    "sql: {population: select 1, value: select 1}",
    "sql: {population: select 1, rows: select 1, measured_in: mas}",
    "image: {}",
    "image: {metric: no_such}",
    "image: {metric: blank_sky, args: {x: 1}}",
    "image: {metric: mask_kept}",
    "image: {metric: mask_kept, args: {planes: CR}}",
    "image: {metric: mask_kept, args: {planes: [NOT_A_PLANE]}}",
    "image: {metric: mask_kept, args: {planes: [1]}}",
    "image: {metric: noise_correlation, args: {axis: north}}",
    "image: {metric: blank_sky, reduce: best}",
    "image: {metric: blank_sky, quantile: 2}",
    "log: {explained: [{pattern: '(', reason: because}]}",
    "log: {explained: [{pattern: '*', reason: because}]}",
    "log: {explained: [{pattern: x, reason: ''}]}",
    "log: {explained: [{pattern: x}]}",
    "log: {levels: [loud]}",
    "log: {levels: []}",
    "header: {product: visit_image, cards: {A: {matches: '['}}}",
    "header: {product: visit_image, cards: {A: {type: complex}}}",
    "header: {product: no_such}",
    "header: {product: visit_image, cards: [A]}",
    "files: {product: no_such}",
    "files: {product: staging/NoTable}",
    "files: {product: ../secret}",
    "files: {product: visit_image, count: most}",
    "command: {}",
    "command: {run: rm -rf /}",
    "command: {run: 'nightjar doctor; ls'}",
    "command: {run: python -c 1}",
    "command: {run: nightjar doctor, recorded: lint}",
    "command: {run: nightjar doctor, stdout: ['(']}",
    "command: {run: nightjar doctor, timeout_s: 0}",
    "command: {run: nightjar doctor, timeout_s: 1e9}",
    "inspect: {question: Q, product: visit_image, sheet: ../x, seed: 1, proxy: AG-00-05/one/first}",
    "inspect: {question: Q, product: visit_image, sheet: x, seed: 1, proxy: AG-00-05/no/such}",
    "inspect: {question: Q, product: visit_image, sheet: x, visits: 0, seed: 1, proxy: a}",
    "review: {document: ../../etc/passwd, states: [root]}",
    "review: {document: /etc/passwd, states: [root]}",
    "review: {document: README.md, states: []}",
    "curve: {quantity: beauty}",
    "curve: {quantity: detected, snr_min: 9, snr_max: 3}",
    "curve: {quantity: detected, snr_min: -1}",
    "schema: {matrix: NO-REQ-1}",
    "alert: {assertions: [no-such]}",
    "alert: {cutouts_every: 0}",
    "staged: {table: NoTable}",
    "custody: {of: nothing}",
    "custody: {}",
    "no_kind: {}",
    "log: {}\n        sql: {population: select 1, rows: select 1}",
    "log: {}\n        bound: around 5",
    "log: {}\n        bound: '< 5 mas'",
    "log: {}\n        bound: '5 .. 3 messages'",
    "log: {}\n        severity: maybe",
    "log: {}\n        when: [full-moon]",
    "log: {}\n        when: half_year",
    "log: {}\n        tolerance: -1",
    "log: {}\n        tolerance: 0",
    "log: {}\n        partial: '= 0 messages'",
)

OTHERS = ("requirements", "waivers", "attributes", "expected")
FIELDS = ("schema", "id", "title", "version", "derived_from", "purpose", "items")


def case_files() -> dict[str, str | bytes]:
    """Malformed case files by name."""
    found: dict[str, str | bytes] = {f"whole-{n}": t for n, t in WHOLE.items()}
    found |= {f"bytes-{n}": t for n, t in BYTES.items()}
    kind = "sql: {population: select 1, rows: select 1}"
    assert kind in CASE
    found |= {f"kind-{n}": CASE.replace(kind, k) for n, k in enumerate(KINDS)}
    for name in FIELDS:
        found[f"without-{name}"] = re.sub(rf"(?m)^{name}:.*\n", "", CASE, count=1)
        found[f"null-{name}"] = re.sub(rf"(?m)^{name}:.*$", f"{name}: ~", CASE, count=1)
    for scalar in SCALARS:
        found[f"version-{scalar}"] = re.sub(r"(?m)^version:.*$", f"version: {scalar}", CASE)
    return found


TOML = {
    "open": "[campaign\n",
    "no-value": "[campaign]\nname =\n",
    "no-key": "[campaign]\n= 3\n",
    "bare": "campaign\n",
    "twice": "[campaign]\nname = 'a'\nname = 'b'\n",
    "table-twice": "[campaign]\n[campaign]\n",
    "quote": "[campaign]\nname = 'a\n",
    "escape": '[campaign]\nname = "\\q"\n',
    "control": "[campaign]\nname = 'a\x07'\n",
    "date": "[campaign]\nseed = 2027-13-41\n",
    "octal": "[campaign]\nseed = 007\n",
    "under": "[campaign]\nseed = 1__0\n",
    "digits": "[campaign]\nseed = " + "9" * 5000 + "\n",
    "deep": "a = " + "[" * 5000 + "\n",
    "yaml": "campaign:\n  name: x\n",
    "json": '{"campaign": 1}\n',
    "scalar-section": "campaign = 3\n",
    "list-section": "[[campaign]]\nname = 'a'\n",
    "unknown-section": "[campain]\n",
    "unknown-key": "[subtract]\nkernel_hafl = 9\n",
    "seed-text": "[campaign]\nseed = 'x'\n",
    "seed-negative": "[campaign]\nseed = -1\n",
    "seed-list": "[campaign]\nseed = [1]\n",
    "name-number": "[campaign]\nname = 1\n",
    "overlap": "[campaign]\noverlap = 7\n",
    "overlap-nan": "[campaign]\noverlap = nan\n",
    "executor": "[execution]\nexecutor = 'magic'\n",
    "jobs": "[execution]\njobs = -2\n",
    "attempts": "[execution]\nattempts = 0\n",
    "kernel": "[subtract]\nkernel_half = 100\n",
    "veto": '[diasource]\nveto = ["SATT"]\n',
    "veto-text": '[diasource]\nveto = "SAT"\n',
}  # fmt: skip
TOML_BYTES = {"not-utf8": b"[campaign]\nname = '\xff'\n", "utf16": "[campaign]".encode("utf-16")}


def test_there_are_three_hundred():
    others = len(OTHERS) * len(WHOLE)

    assert len(case_files()) + others + len(TOML) + len(TOML_BYTES) >= 300


def test_every_malformed_case_file_is_refused_with_its_place(folder):  # noqa: F811
    path = folder / "ag-00-05.yaml"
    for name, content in case_files().items():
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        lines = refusal(folder)
        assert lines, f"{name} was accepted"
        assert all(LINE.fullmatch(line) for line in lines), (name, lines)


def refusal(folder):  # noqa: F811
    try:
        load_spec(folder)
    except SpecError as err:
        return [str(p) for p in err.problems]
    return []


@pytest.mark.parametrize("name", OTHERS)
@pytest.mark.parametrize("text", [*WHOLE.values(), "schema: 1\nversion: 2\n"], ids=[*WHOLE, "more"])
def test_every_malformed_other_file_is_refused_with_its_place(folder, name, text):  # noqa: F811
    if name == "expected":
        (folder / "expected.yaml").write_text((TESTCASES / "expected.yaml").read_text())
    (folder / f"{name}.yaml").write_text(text)

    with pytest.raises(SpecError) as caught:
        load_spec(folder)

    assert all(LINE.fullmatch(str(p)) for p in caught.value.problems)
    assert caught.value.problems


def test_every_malformed_configuration_is_refused_with_its_place(tmp_path):
    path = tmp_path / "nightjar.toml"
    for name, content in {**TOML, **TOML_BYTES}.items():
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        with pytest.raises(ConfigError) as caught:
            Settings.load(path)
        assert LINE.fullmatch(str(caught.value)), (name, str(caught.value))
        assert caught.value.exit_code == 2


def test_the_command_says_so_and_exits_with_2(folder, capsys):  # noqa: F811
    (folder / "ag-00-05.yaml").write_text(bomb())

    status = execute(["lint", str(folder)])

    said = capsys.readouterr().err.splitlines()
    assert status == 2
    assert said
    assert all(LINE.fullmatch(line) for line in said)
