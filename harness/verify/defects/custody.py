"""Defects of the chain of custody: specification, records of runs, logs, configuration."""

from __future__ import annotations

from harness.verify.copy import Copy
from harness.verify.defect import defect

__all__: list[str] = []

_ITEM = "AG-00-05/custody"


@defect("edited-pin", f"{_ITEM}/specification")
def edited_pin(copy: Copy) -> None:
    """Weaken a bound in the pinned specification."""
    copy.text(copy.space.specification, lambda text: text.replace("= 0 files", "<= 9 files", 1))


@defect("deleted-pin", f"{_ITEM}/specification")
def deleted_pin(copy: Copy) -> None:
    """Delete the pinned specification."""
    copy.space.specification.unlink()


@defect("edited-record", f"{_ITEM}/runs")
def edited_record(copy: Copy) -> None:
    """Forget the run before the newest one."""
    copy.sql(
        "update run set previousHash = 'of another run' "
        "where startedMjdTai = (select max(startedMjdTai) from run)"
    )


@defect("interrupted-run", f"{_ITEM}/ending")
def interrupted_run(copy: Copy) -> None:
    """Let the newest run be interrupted."""
    copy.sql(
        "update run set status = 'interrupted' "
        "where startedMjdTai = (select max(startedMjdTai) from run)"
    )


@defect("killed-run", f"{_ITEM}/ending")
def killed_run(copy: Copy) -> None:
    """Let the newest run never have ended."""
    copy.sql("update run set status = 'running', endedMjdTai = null")


@defect("deleted-log", f"{_ITEM}/logs")
def deleted_log(copy: Copy) -> None:
    """Delete the log of a run."""
    max(copy.space.logs.glob("*-run.jsonl")).unlink()


@defect("shortened-log", f"{_ITEM}/logs")
def shortened_log(copy: Copy) -> None:
    """Drop the last line of the log of a run."""
    path = max(copy.space.logs.glob("*-run.jsonl"))
    copy.text(path, lambda text: "".join(text.splitlines(keepends=True)[:-1]))


@defect("edited-threshold", f"{_ITEM}/configuration")
def edited_threshold(copy: Copy) -> None:
    """Change a value of the configuration after the run."""
    copy.text(copy.space.config, lambda text: text.replace("overlap = 0.2", "overlap = 0.3", 1))


@defect("edited-seed", f"{_ITEM}/configuration")
def edited_seed(copy: Copy) -> None:
    """Change the seed in the configuration after the run."""
    copy.text(copy.space.config, lambda text: text.replace("\nseed = ", "\nseed = 9", 1))
