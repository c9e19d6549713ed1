"""The command ``nightjar``.

One module per verb; this one only lists them and turns what goes wrong into an exit code and one
clear line.

====  ===========================================================================
code  meaning
====  ===========================================================================
0     done; all pass or waived
1     some units failed, or some check failed
2     usage, configuration or a malformed input file
3     partial only
4     incomplete
70    internal error: a bug of ours
130   interrupted
====  ===========================================================================
"""

from __future__ import annotations

import atexit
import gc
import importlib
import logging
import os
import sys
import traceback
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_name, "1")  # before NumPy: results must not depend on the threads

import typer  # noqa: E402

__all__ = ["VERBS", "build_app", "execute", "main"]

VERBS: dict[str, str] = {
    "init": "Make a workspace with a commented configuration.",
    "sim": "Simulate the raw exposures of the workspace's profile.",
    "ingest": "Register exposures that were taken by a real telescope.",
    "run": "Run the pipeline: raw exposures to alerts.",
    "status": "Say what is done, what failed and why.",
    "verify": "Judge the campaign against the test cases.",
    "report": "Write the test report.",
    "study": "Inject synthetic transients and find out what becomes of them.",
    "subtract": "Subtract a template from an image, outside any workspace.",
    "rerun": "Make a product again from its provenance and compare.",
    "alerts": "Check and show alert files.",
    "inspect": "Draw a contact sheet of a unit.",
    "explain": "Tell the story of a unit or of a source.",
    "export": "Write a table as Parquet, VOTable or CSV.",
    "sabotage": "Plant known defects and see which check catches them.",
    "doctor": "Check this installation.",
}
"""Every verb with its one line of help, in the order of use."""

_HELP = """From raw survey exposures to transient alerts, and the proof that they are right.

A campaign lives in a WORKSPACE: nightjar init W --profile tiny; nightjar sim W; nightjar run W.

Exit codes: 0 all well, 1 something failed, 2 usage or malformed file, 3 partial only,
4 incomplete, 70 internal error, 130 interrupted."""


def build_app() -> Any:
    """Assemble the command from the verbs' modules.

    Returns
    -------
    click.Command
        The whole command; each verb's module imports nothing heavy before it runs.
    """
    app = typer.Typer(
        name="nightjar",
        help=_HELP,
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
    )
    app.callback(invoke_without_command=True)(_top)
    for verb, summary in VERBS.items():
        entry = _entry(verb)
        if isinstance(entry, typer.Typer):
            app.add_typer(entry, name=verb, help=summary)
        elif entry is not None:
            app.command(verb, short_help=summary)(entry)
    return typer.main.get_command(app)


def _top(
    version: bool = typer.Option(
        False, "--version", help="Print the version and stop.", is_eager=True
    ),
) -> None:
    if version:
        from harness.software import software_version

        typer.echo(f"nightjar {software_version()}")
        raise typer.Exit


def _entry(verb: str) -> Any:
    module = f"harness.cli.{verb}"
    if importlib.util.find_spec(module) is None:
        return None
    return getattr(importlib.import_module(module), verb)


def execute(arguments: Sequence[str]) -> int:
    """Run one command line.

    Parameters
    ----------
    arguments : sequence of str
        What follows the name of the program.

    Returns
    -------
    int
        The exit code; every error has been reported on standard error by then.
    """
    from pipeline.errors import NightjarError

    try:
        code = build_app().main(list(arguments), prog_name="nightjar", standalone_mode=False)
    except KeyboardInterrupt:
        return _fail("interrupted; run the same command again to go on", 130)
    except NightjarError as err:
        return _fail(str(err), err.exit_code)
    except Exception as err:
        return _unexpected(err)
    return code if isinstance(code, int) else 0


def _unexpected(err: Exception) -> int:
    usage = getattr(err, "format_message", None)
    if usage is not None:  # what click raises for a wrong command line
        context = getattr(err, "ctx", None)
        hint = f" (see: {context.command_path} --help)" if context is not None else ""
        return _fail(f"{usage()}{hint}", 2)
    if type(err).__name__ == "Abort":
        return _fail("interrupted", 130)
    if isinstance(err, BrokenPipeError):
        return 0
    if os.environ.get("NIGHTJAR_TRACEBACK"):
        traceback.print_exception(err)
    place = traceback.extract_tb(err.__traceback__)[-1]
    where = f"{os.path.basename(place.filename)}:{place.lineno}"  # noqa: PTH119
    line = f"internal error: {type(err).__name__}: {err} at {where}"
    return _fail(f"{line} (set NIGHTJAR_TRACEBACK=1 for the traceback)", 70)


def _fail(line: str, code: int) -> int:
    from harness.text import one_line

    sys.stderr.write(f"nightjar: {one_line(line)}\n")
    return code


def main() -> None:
    """Entry point of the command."""
    gc.set_threshold(100_000, 50, 100)  # what imports make stays: to look through it is in vain
    leave = _QuickExit()
    # The last handler to run: those of the libraries, which are loaded later, come before it.
    atexit.register(leave)
    leave.code = execute(sys.argv[1:])
    sys.exit(leave.code)


class _QuickExit:
    """Leaves without taking the libraries apart, which takes half a second for nothing."""

    code = 70

    def __call__(self) -> None:
        logging.shutdown()
        with suppress(OSError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(self.code)


if __name__ == "__main__":
    main()
