"""Signatures of a bundle by SSH keys: over the list of hashes, and so over every file."""

from __future__ import annotations

import base64
import binascii
import re
import subprocess
from collections.abc import Sequence
from pathlib import Path

from harness.report.checksums import SIGNATURE, SUMS
from harness.system.text import one_line
from harness.workspace import atomic
from pipeline.errors import InputError

__all__ = ["NAMESPACE", "sign", "signature_fault", "signer"]

NAMESPACE = "nightjar-report"
"""What the signatures are for; one of another namespace does not count."""

_PROGRAM = "ssh-keygen"
_BEGIN, _END = "-----BEGIN SSH SIGNATURE-----", "-----END SSH SIGNATURE-----"
_COLUMNS = 70


def sign(folder: Path, key: Path) -> None:
    """Sign a bundle with an SSH key.

    Parameters
    ----------
    folder : Path
        The bundle; ``SHA256SUMS.sig`` is written into it.
    key : Path
        Private key, or a public one whose private key an agent holds.

    Raises
    ------
    InputError
        If the key cannot be used.
    """
    done = _keygen(folder, "sign", "-q", "-f", str(key))
    if done.returncode != 0:
        raise InputError(
            f"cannot sign: {_said(done)}", path=key, expected="an SSH key, such as one of ssh-agent"
        )
    with atomic(folder / SIGNATURE) as partial:
        partial.write_text(done.stdout, encoding="utf-8")


def signature_fault(folder: Path, signers: Path | None = None) -> str:
    """Say what is wrong with the signature of a bundle.

    Parameters
    ----------
    folder : Path
        The bundle.
    signers : Path, optional
        Who may sign, as in ssh-keygen's ALLOWED SIGNERS; without it any key will do.

    Returns
    -------
    str
        One phrase, empty for a good signature; also for none where nobody was asked for.
    """
    try:
        text = (folder / SIGNATURE).read_text(encoding="utf-8")
    except FileNotFoundError:
        return "is missing; the report is not signed" if signers is not None else ""
    except (OSError, UnicodeDecodeError):
        return "cannot be read"
    if not _is_armoured(text):
        return "is altered; it is not in the form in which it was written"
    try:
        return _unsound(folder, signers)
    except InputError as err:
        return f"cannot be checked: {one_line(err)}"


def signer(folder: Path, signers: Path | None = None) -> str:
    """Name who signed a bundle.

    Parameters
    ----------
    folder : Path
        The bundle; its signature is good.
    signers : Path, optional
        Who may sign; without it the key alone is known.

    Returns
    -------
    str
        Name and key, or the key; empty for a bundle without a signature.
    """
    if not (folder / SIGNATURE).is_file():
        return ""
    said = _keygen(folder, "check-novalidate", *_signed(folder)).stdout
    found = re.search(r"with (\S+ key \S+)", said)
    key = found.group(1) if found else "unknown key"
    return f"{_principal(folder, signers)}, {key}" if signers is not None else key


def _unsound(folder: Path, signers: Path | None) -> str:
    done = _keygen(folder, "check-novalidate", *_signed(folder))
    if done.returncode != 0:
        return f"is not of this {SUMS}: {_said(done)}"
    if signers is None:
        return ""
    name = _principal(folder, signers)
    if not name:
        return f"is by none of the keys in {signers}"
    words = ("-f", str(signers), "-I", name)
    done = _keygen(folder, "verify", *words, *_signed(folder))
    return "" if done.returncode == 0 else f"does not count for {name}: {_said(done)}"


def _principal(folder: Path, signers: Path) -> str:
    """First name that a list of signers gives to the key, empty for a stranger."""
    done = _keygen(folder, "find-principals", "-f", str(signers), *_signed(folder))
    return next(iter(done.stdout.splitlines()), "") if done.returncode == 0 else ""


def _signed(folder: Path) -> tuple[str, str]:
    return "-s", str(folder / SIGNATURE)


def _keygen(folder: Path, action: str, *words: str) -> subprocess.CompletedProcess[str]:
    """Run ssh-keygen on the list of hashes."""
    command: Sequence[str] = (_PROGRAM, "-Y", action, "-n", NAMESPACE, *words)
    try:
        with (folder / SUMS).open("rb") as content:
            return subprocess.run(command, stdin=content, capture_output=True, text=True)
    except FileNotFoundError as err:
        missing = SUMS if err.filename != _PROGRAM else f"{_PROGRAM} (of OpenSSH 8.9 or later)"
        raise InputError(f"needs {missing}, which is not here", path=folder) from err


def _said(done: subprocess.CompletedProcess[str]) -> str:
    return one_line(done.stderr.strip() or done.stdout.strip() or f"status {done.returncode}")


def _is_armoured(text: str) -> bool:
    """Whether a text is a signature as ssh-keygen writes it, to the byte."""
    body = "".join(text.removeprefix(_BEGIN).partition(_END)[0].split())
    try:
        content = base64.b64encode(base64.b64decode(body, validate=True)).decode()
    except binascii.Error:
        return False
    lines = [content[n : n + _COLUMNS] for n in range(0, len(content), _COLUMNS)]
    return text == "\n".join([_BEGIN, *lines, _END, ""])
