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
130   interrupted (Ctrl-C)
141   whoever read the output went away
143   asked to end (SIGTERM)
====  ===========================================================================
"""

from __future__ import annotations

import atexit
import errno
import gc
import importlib
import importlib.util
import logging
import os
import signal
import sys
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from types import FrameType
from typing import TYPE_CHECKING, Any, TextIO, TypeVar

from harness.system.threads import THREAD_VARIABLES

if TYPE_CHECKING:
    import typer
    from typer.core import TyperGroup

os.environ |= dict.fromkeys(THREAD_VARIABLES, "1")  # before NumPy: sums depend on the threads

__all__ = ["VERBS", "build_app", "execute", "main"]

T = TypeVar("T")

VERBS: dict[str, str] = {
    "init": "Make a workspace with a commented configuration.",
    "sim": "Simulate the raw exposures of the workspace's profile.",
    "camera": "Describe an instrument.",
    "ingest": "Register exposures that were taken by a real telescope.",
    "run": "Run the pipeline: raw exposures to alerts.",
    "watch": "Process raw files as they land, visit by visit to alerts.",
    "work": "Perform items of a run that was started elsewhere.",
    "slices": "Process a campaign that is larger than the disk, part by part.",
    "status": "Say what is done, what failed and why.",
    "verify": "Judge the campaign against the test cases.",
    "report": "Write the test report.",
    "train-reliability": "Train the classifier of sources, or judge it.",
    "force": "Measure fluxes at given coordinates in every image of a campaign.",
    "study": "Inject synthetic transients and find out what becomes of them.",
    "subtract": "Subtract a template from an image, outside any workspace.",
    "rerun": "Make a product again from its provenance and compare.",
    "alerts": "Check, show, compare and publish alerts.",
    "history": "Show what was known at a date of the survey.",
    "inspect": "Draw a contact sheet of a unit, or the page of an object.",
    "explain": "Tell the story of a unit, a source, a check, a requirement or a waiver.",
    "lint": "Read test cases, requirements, waivers and settings; name every mistake.",
    "export": "Write a table as Parquet, VOTable, CSV or regions.",
    "sabotage": "Plant known defects and see which check catches them.",
    "doctor": "Check this installation.",
}
"""Every verb with its one line of help, in the order of use."""

_HELP = """From raw survey exposures to transient alerts, and the proof that they are right.

A campaign lives in a WORKSPACE: nightjar init W --profile tiny; nightjar sim W; nightjar run W.

Exit codes: 0 all well, 1 something failed, 2 usage or malformed file, 3 partial only,
4 incomplete, 70 internal error, 130 interrupted, 141 output not read, 143 terminated."""


def build_app() -> TyperGroup:
    """Assemble the command from the verbs' modules.

    Returns
    -------
    typer.core.TyperGroup
        The whole command; each verb's module imports nothing heavy before it runs.
    """
    import typer

    def top(
        version: bool = typer.Option(
            False, "--version", help="Print the version and stop.", is_eager=True
        ),
    ) -> None:
        if version:
            from harness.system.software import software_version

            typer.echo(f"nightjar {software_version()}")
            raise typer.Exit

    app = typer.Typer(
        name="nightjar",
        help=_HELP,
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
    )
    app.callback(invoke_without_command=True)(top)
    for verb, summary in VERBS.items():
        entry = _entry(verb)
        if isinstance(entry, typer.Typer):
            app.add_typer(entry, name=verb, help=summary)
        elif entry is not None:
            app.command(verb, short_help=summary)(entry)
    return typer.main.get_group(app)


def _entry(verb: str) -> typer.Typer | Callable[..., None] | None:
    name = verb.replace("-", "_")
    module = f"harness.cli.{name}"
    if importlib.util.find_spec(module) is None:
        return None
    entry: typer.Typer | Callable[..., None] = getattr(importlib.import_module(module), name)
    return entry


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
        code = _perform(arguments)
        sys.stdout.flush()
    except KeyboardInterrupt as err:
        code = getattr(err, "exit_code", 130)  # that of `harness.system.processes.Terminated`
        return _fail("interrupted; run the same command again to go on", code)
    except NightjarError as err:
        return _fail(str(err), err.exit_code)
    except Exception as err:
        return _unexpected(err)
    return code


def _perform(arguments: Sequence[str]) -> int:
    """Run a command; click's own `main` would hide what happened to the output."""
    import typer

    app = build_app()
    try:
        with app.make_context("nightjar", list(arguments)) as context:
            code = app.invoke(context)
    except typer.Exit as stop:
        code = stop.exit_code
    return code if isinstance(code, int) else 0


def _unexpected(err: Exception) -> int:
    if isinstance(err, OSError) and err is getattr(sys.stdout, "failure", None):
        if err.errno == errno.EPIPE:
            return 141
        return _fail(f"the output cannot be written: {err.strerror}", 2)
    if type(err).__name__ == "NoArgsIsHelpError":
        sys.stderr.write(f"{err}\n")
        return 2
    usage = getattr(err, "format_message", None)
    if usage is not None:  # what click raises for a wrong command line
        context = getattr(err, "ctx", None)
        hint = f" (see: {context.command_path} --help)" if context is not None else ""
        return _fail(f"{usage()}{hint}", 2)
    if type(err).__name__ == "Abort":
        return _fail("interrupted", 130)
    if os.environ.get("NIGHTJAR_TRACEBACK"):
        traceback.print_exception(err)
    place = traceback.extract_tb(err.__traceback__)[-1]
    where = f"{os.path.basename(place.filename)}:{place.lineno}"  # noqa: PTH119
    line = f"internal error: {type(err).__name__}: {err} at {where}"
    return _fail(f"{line} (set NIGHTJAR_TRACEBACK=1 for the traceback)", 70)


def _fail(line: str, code: int) -> int:
    from harness.system.text import one_line

    with suppress(OSError):  # nobody may be there to read it
        sys.stderr.write(f"nightjar: {one_line(line)}\n")
    return code


def main() -> None:
    """Entry point of the command."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # else it is to be ignored
        signal.signal(signal.SIGINT, _interrupted)
    _replace_closed_streams()
    sys.stdout = _Output(sys.stdout)
    gc.set_threshold(100_000, 50, 100)  # what imports make stays: to look through it is in vain
    leave = _QuickExit()
    # The last handler to run: those of the libraries, which are loaded later, come before it.
    atexit.register(leave)
    _adopt_temporary_files()
    leave.code = execute(sys.argv[1:])
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # it is over
    sys.exit(leave.code)


def _replace_closed_streams() -> None:
    """Let no other file get the number of a standard stream that was closed by who called us."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115, PTH123


def _adopt_temporary_files() -> None:
    from harness.system.scratch import adopt_folder

    with suppress(OSError):  # whoever needs a temporary file will say that there is no place
        adopt_folder()


def _interrupted(_number: int, frame: FrameType | None) -> None:
    """Heed Ctrl-C; at once outside `execute`, and in the middle of an import.

    Nobody would catch an exception there, or it may do anything.
    """
    inside = False
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            inside = False
            break
        inside = inside or frame.f_code is execute.__code__
        frame = frame.f_back
    if inside:
        raise KeyboardInterrupt
    with suppress(OSError):
        os.write(2, b"nightjar: interrupted; run the same command again to go on\n")
    os._exit(130)


class _Output:
    """Standard output that remembers why it could not be written."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self.failure: OSError | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        return self._try(lambda: self._stream.write(text))

    def flush(self) -> None:
        self._try(self._stream.flush)

    def _try(self, action: Callable[[], T]) -> T:
        try:
            return action()
        except OSError as err:
            self.failure = err
            raise


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
