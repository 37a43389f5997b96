"""The command line: one thin command per job.

Exit codes: 0 done; 1 a bug or an invariant broken; 2 wrong input (one message, nothing written); 130 interrupted.
"""

from __future__ import annotations

import sys

__all__ = ["app", "codec", "commands", "crosscheck", "figures", "main", "reproduce", "studies"]
INTERRUPTED = "interrupted; nothing was written"

try:
    import signal
    from typing import NoReturn

    from simulator.cli import codec, commands, crosscheck, figures, reproduce, studies  # they add their commands to the program
    from simulator.cli.app import Interrupt, app
except KeyboardInterrupt:  # imports take a tenth of a second: long enough for Ctrl-C
    sys.stderr.write(f"{INTERRUPTED}\n")
    raise SystemExit(130) from None


def main() -> None:
    """The `speckvsim` command, the last thing its process does."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # a name that the terminal cannot show must not end a run
            stream.reconfigure(errors="replace")
    interrupt = Interrupt(INTERRUPTED)
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # else whoever started us wants it ignored
        signal.signal(signal.SIGINT, interrupt)
    try:
        app(prog_name="speckvsim", obj=interrupt)
    except KeyboardInterrupt:
        _interrupted(interrupt.message)
    except SystemExit as end:
        if end.code == 130:  # what typer makes of Ctrl-C
            _interrupted(interrupt.message)
        raise
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Python takes a while to exit, and what is done is done


def _interrupted(message: str) -> NoReturn:
    sys.stderr.write(f"{message}\n")
    raise SystemExit(130) from None
