"""The command line: `commands` with their parameters as options. Results on stdout, messages on stderr.

Exit status: 0 done, 1 scores that are not those of the fit (`verify`), 2 bad input (`error:` and `hint:`), 3 a fit
whose self-checks failed, 4 drift, a change that `watch` calls, or a fit that breaks its --max-group-fpr, 5 a benchmark
with failed cells, 130 interrupted.
"""

from __future__ import annotations

import io
import json
import logging
import os
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout, suppress
from typing import Any

from cyclopts import App, CycloptsError, Parameter

from .. import __version__
from ..core import messages
from ..errors import InputError, printable
from ..integrations.named_modules import import_named
from ..training import torchrun
from .commands import COMMANDS

_PREFIXES = {"NOTE": "note: ", "WARNING": "warning: ", "ERROR": "error: "}
# torch has no kind of its own for memory that is not there, but for that of a GPU.
_NO_MEMORY = ("allocate memory", "out of memory", "Storage size calculation overflowed")
# Messages quote what was given, which may be of any length.
_LONGEST = 4_000

app = App(
    name="tailwise",
    help="Anomaly detection when the normal data is real: long-tailed, contaminated, shifted.",
    version=__version__,
    help_format="plaintext",
    suppress_keyboard_interrupt=False,
    default_parameter=Parameter(negative=()),
)


for command in COMMANDS:
    app.command(command)


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point: run the command and leave with its exit status."""
    sys.exit(run(sys.argv[1:] if arguments is None else arguments))


def run(arguments: Sequence[str]) -> int:
    """Run one command and return its exit status."""
    if torchrun.helps():
        warnings.showwarning = lambda *_, **__: None
        with _only_errors():
            return _run(arguments)
    warnings.showwarning = lambda message, *_, **__: _say(f"warning: {message}")
    with _lines_on_stderr():
        return _run(arguments)


@contextmanager
def _only_errors() -> Iterator[None]:
    """While the block runs errors alone are printed: another process tells of the same command, but torchrun ends it
    as soon as one fails, perhaps before it has said why."""
    with open(os.devnull, "w", encoding="utf-8") as nowhere, redirect_stdout(nowhere), messages.said_before():
        yield


def _run(arguments: Sequence[str]) -> int:
    if isinstance(sys.stdout, io.TextIOWrapper):
        # A path may hold bytes that are no text, and a terminal know few letters: neither is worth a lost result.
        sys.stdout.reconfigure(errors="surrogateescape" if sys.stdout.encoding == "utf-8" else "backslashreplace")
    try:
        if odd := [argument for argument in arguments if not _is_text(argument)]:
            raise InputError(f"an argument is no text of this system: {odd[0]!r}", "no path and no name holds that")
        import_named()
        command, bound, _ = _parsed(arguments)
        if torchrun.helps() and command.__name__ != "fit":
            return 0  # nothing but a fit is divided
        result = command(*bound.args, **bound.kwargs)
        if torchrun.helps():
            return 0  # the first process has the run
        status = _show(result, _flag(arguments, "--out"), _flag(arguments, "--json"))
        if sys.stdout is not None:
            sys.stdout.flush()
        return status
    except CycloptsError as error:
        _say(f"error: {' '.join(str(error).split())}")
        _say(f"hint: {_see_help(arguments)}")
        return 2
    except KeyboardInterrupt:
        _say("interrupted; the same command resumes an unfinished fit, map or folder of scores")
        return 130
    except BrokenPipeError:
        # The reader of stdout has gone (as `| head` does); there is nobody left to tell.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        said = _explained(error)
        if said is None:
            raise
        _say(f"error: {said[0]}")
        _say(f"hint: {said[1] or _see_help(arguments)}")
        return 2


def _is_text(argument: str) -> bool:
    """Whether the system could have handed it over: no zero byte, no half of a letter."""
    with suppress(UnicodeEncodeError):
        return b"\0" not in os.fsencode(argument)
    return False


def _parsed(arguments: Sequence[str]) -> Any:
    """The command and what it is called with. Lists may be written as JSON, of any depth."""
    try:
        return app.parse_args(arguments, exit_on_error=False, print_error=False)
    except RecursionError as error:
        raise InputError("an argument is nested too deep to be read", "write it with fewer parentheses") from error


def _explained(error: Exception) -> tuple[str, str] | None:
    """Message and hint for what the user can act on; None for what is a fault of ours."""
    if isinstance(error, InputError):
        return error.message, error.hint
    if isinstance(error, MemoryError) or any(text in str(error) for text in _NO_MEMORY):
        return f"not enough memory: {error}", "use fewer or smaller samples, a smaller network or a smaller batch"
    if isinstance(error, OSError):
        return f"{error.filename or 'the system'}: {error.strerror or error}", "mend that, and repeat the command"
    return None


def _show(result: Any, written: bool, as_json: bool = False) -> int:
    if hasattr(result, "to_csv"):
        if result.attrs:
            return _tell_of_triage(result, written, as_json)
        if not written:
            from ..runs.sheets import to_csv

            _print(to_csv(result))
        return 0
    if isinstance(result, dict):
        _print("\n".join(f"{kind}: {', '.join(members)}" for kind, members in result.items()))
        return 0
    if hasattr(result, "settings"):  # a run
        _tell_of_run(result, as_json)
        if result.settings.failed_checks:
            return 3
        return 4 if (result.settings.group_fpr or {}).get("broken") else 0
    if result is not None:
        _print(str(result))
    if getattr(result, "differing", 0):
        return 1
    if failed := getattr(result, "failed", 0):
        _say(f"error: {failed} {'cell' if failed == 1 else 'cells'} of the suite failed")
        _say("hint: the rows say why; the same command does failed cells again once the code has changed")
        return 5
    return 4 if getattr(result, "alarm", False) else 0


def _tell_of_run(run: Any, as_json: bool) -> None:
    """Its path on stdout, or what it came to as JSON; for people in five lines on stderr."""
    from ..runs import display

    came = run.outcome()
    if as_json:
        _print(json.dumps(came))
        return
    for line in display.lines(came):
        _say(line)
    _print(str(run.path))


def _tell_of_triage(table: Any, written: bool, as_json: bool) -> int:
    """What it came to in lines on stderr; on stdout the path of the sheet, or the scores where nothing was written, or
    what it came to as JSON."""
    from ..report import review
    from ..runs.sheets import to_csv

    if as_json:
        _print(json.dumps(table.attrs))
        return 0
    for line in review.lines(table.attrs):
        _say(line)
    _print(table.attrs["review"] if written else to_csv(table))
    return 0


def _print(text: str) -> None:
    """Lines of results, with nothing in them that steers a terminal."""
    print("\n".join(map(printable, text.removesuffix("\n").split("\n"))))


def _flag(arguments: Sequence[str], name: str) -> bool:
    return any(argument == name or argument.startswith(f"{name}=") for argument in arguments)


def _command(arguments: Sequence[str]) -> list[str]:
    return [a for a in arguments[:1] if a in {command.__name__ for command in COMMANDS}]


def _see_help(arguments: Sequence[str]) -> str:
    return " ".join(["tailwise", *_command(arguments), "--help"])


class _Lines(logging.Handler):
    """Messages of the logger `tailwise` as lines on stderr."""

    def emit(self, record: logging.LogRecord) -> None:
        text = printable(f"{getattr(record, 'prefix', _PREFIXES.get(record.levelname, ''))}{record.getMessage()}")
        if hasattr(record, "style") and sys.stderr.isatty():
            from rich.console import Console

            Console(stderr=True).print(text, style=record.style, highlight=False, soft_wrap=True)
        else:
            print(text, file=sys.stderr)


@contextmanager
def _lines_on_stderr() -> Iterator[None]:
    """Print messages while the block runs; the logger is left as it was."""
    logger, handler = logging.getLogger("tailwise"), _Lines()
    level, propagate = logger.level, logger.propagate
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
        logger.propagate = propagate


def _say(message: str) -> None:
    line = printable(" ".join(message.split()))
    if len(line) > _LONGEST:
        line = f"{line[: _LONGEST // 2]} ... {line[-_LONGEST // 2 :]}"
    with suppress(OSError):  # where messages cannot be written, the exit status still tells
        print(line, file=sys.stderr, flush=True)
