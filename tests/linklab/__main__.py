"""Run a command at the near end of a poor link.

    python -m tests.linklab --rate 64 --delay 200 --loss 2:2 --queue 1.0 -- COMMAND …
    python -m tests.linklab --link vsat -- ping -c 3 10.77.0.2
    python -m tests.linklab --link 64 --far "python3 -m http.server" -- wget -O- http://10.77.0.2:8000/

The command finds the far end at 10.77.0.2, its own address is 10.77.0.1. The far end is a namespace of its own (run
something there with --far), or with --far-is-here the machine itself.
"""

from __future__ import annotations

import argparse
import contextlib
import shlex
import signal
import subprocess
import sys
from collections.abc import Sequence

from tests.linklab.lab import LabUnavailable, LinkLab, with_namespaces_allowed
from tests.linklab.path import PathCounts
from tests.linklab.spec import LINKS, Link, SpecError, in_words, parse_link


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.linklab", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--link", help=f"all of it in one line, as in 64,200ms,2%%,1.0s; or one of {', '.join(LINKS)}")
    parser.add_argument("--rate", help="kbit/s, or UP:DOWN")
    parser.add_argument("--trace", help="a time_s,kbps file, looped, in place of a rate")
    parser.add_argument("--delay", default="0", help="one-way, ms (default: %(default)s)")
    parser.add_argument("--jitter", default="0", help="0…this on top, ms (default: %(default)s)")
    parser.add_argument("--loss", default="0", help="%%, or %%:MEAN_RUN (default: %(default)s)")
    parser.add_argument("--queue", default="1.0", help="seconds at the rate of the moment (default: %(default)s)")
    parser.add_argument("--outage", action="append", default=[], metavar="START:SECONDS", help="may be repeated")
    parser.add_argument("--seed", type=int, default=1, help="another one, other losses (default: %(default)s)")
    parser.add_argument("--far", metavar="COMMAND", help="a command to run at the far end meanwhile")
    parser.add_argument("--far-is-here", action="store_true", help="the far end is this machine itself")
    parser.add_argument("command", nargs="+", metavar="COMMAND")
    options = parser.parse_args()
    try:
        link = parse_link(options.link or _spec(options)).seeded(options.seed)
    except SpecError as error:
        parser.error(str(error))
    try:
        if not options.far_is_here:
            with_namespaces_allowed()
        return _run(link, options.command, shlex.split(options.far or ""), options.far_is_here)
    except LabUnavailable as error:
        print(f"no link can be made here: {error}", file=sys.stderr)
        return 1


def _spec(options: argparse.Namespace) -> str:
    if not options.rate and not options.trace:
        raise SpecError("say the --rate, a --trace, or a --link")
    up, _, down = (options.rate or "").partition(":")
    rate = f"trace={options.trace}" if options.trace else f"up={up},down={down or up}"
    outages = "".join(f",outage={outage.replace(':', '+')}" for outage in options.outage)
    loss, _, run = options.loss.partition(":")
    return f"{rate},{options.delay}+{options.jitter}ms,{loss}%x{run or 1},{options.queue}s{outages}"


def _run(link: Link, command: Sequence[str], far_command: Sequence[str], far_is_here: bool) -> int:
    with contextlib.ExitStack() as stack:
        lab = stack.enter_context(LinkLab(up=link.up, down=link.down, far_is_here=far_is_here))
        print(f"link: {in_words(link)}; here {lab.near.address}, there {lab.far.address}", file=sys.stderr)
        if far_command:
            far = lab.far.popen(far_command)
            stack.callback(_end, far)
        near = lab.near.popen(command)
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the command too, and ends us with it
        code = near.wait()
        for name, counts in (("up", lab.up_counts), ("down", lab.down_counts)):
            print(f"{name}: {_in_words(counts)}", file=sys.stderr)
    return code if code >= 0 else 128 - code


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(5)
    process.kill()
    process.wait()


def _in_words(counts: PathCounts) -> str:
    waits = sorted(counts.queue_s)
    p95 = waits[int(0.95 * (len(waits) - 1))] if waits else 0.0
    return (
        f"{counts.offered} packets, {counts.delivered} arrived with {counts.delivered_bytes} bytes, "
        f"{counts.lost} lost, {counts.overflowed} dropped by a full queue, queue p95 {p95 * 1000:.0f} ms"
    )


if __name__ == "__main__":
    sys.exit(main())
