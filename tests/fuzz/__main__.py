"""Random calls of the whole public API, each held against the NumPy reference.

Status 1 where a call failed; a script that repeats it is printed.  130 after Ctrl-C, from which `--state`
goes on.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from . import ROOT
from .operations import OPERATIONS
from .reproduce import script, shortest
from .state import State
from .variants import variants
from .worker import WHERE_BYTES

from support import sanitize  # isort: skip

CALLS = 100_000  # by default, without --minutes
SAVE_SECONDS = 5.0
HUNG_SECONDS = 300.0  # a worker that says nothing for so long is ended
SHORTENED = 10  # failures whose calls are shortened


class Worker:
    """A process that makes calls."""

    def __init__(self, job: dict[str, Any], folder: Path) -> None:
        self.where = [folder / f"where{i}" for i in range(job["threads"])]
        for path in self.where:
            path.write_bytes(b" " * WHERE_BYTES)
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.fuzz.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=(folder / "stderr").open("w+"),
            cwd=ROOT,
            text=True,
            start_new_session=True,  # Ctrl-C reaches this process alone
        )
        self.folder, self.lines = folder, queue.Queue[str | None]()
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(job | {"where": [str(path) for path in self.where]}) + "\n")
        self.process.stdin.close()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.put(line)
        self.lines.put(None)

    def stop(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            self.process.kill()
        self.process.wait()

    def how_it_ended(self) -> str:
        """The signal or the status, and the end of what it wrote."""
        status = self.process.wait()
        name = signal.Signals(-status).name if status < 0 else f"status {status}"
        text = (self.folder / "stderr").read_text(errors="replace").strip()
        return f"the process ended with {name}: {text[-300:]}" if text else f"the process ended with {name}"

    def running(self) -> list[tuple[str, int, str, int]]:
        """The operation, case, variant and call that each thread was in."""
        found = []
        for path in self.where:
            words = path.read_bytes().split(b"\n")[0].split()
            if len(words) == 4:
                found.append((words[0].decode(), int(words[1]), words[2].decode(), int(words[3])))
        return found


def run(
    state: State, calls: int, seconds: float, path: Path | None, progress: Any, first_failure: bool
) -> None:
    """Make calls until there are `calls`, the time is over, or one fails; save the state on the way."""
    until, started, saved = time.monotonic() + seconds, time.monotonic(), time.monotonic()
    before = state.seconds
    with tempfile.TemporaryDirectory() as folder:
        done = False
        while not done:
            left = until - time.monotonic()
            job = state.job | {"first": state.next, "skipped": state.skipped, "made": state.calls}
            job |= {"calls": calls, "seconds": left}
            worker = Worker(job, Path(folder))
            try:
                for line in lines_of(worker):
                    state.seconds = before + time.monotonic() - started
                    report(state, line)
                    behind = state.next > max(state.skipped, default=-1)
                    done = done or line["done"] or bool(first_failure and state.failed and behind)
                    progress(state)
                    if done:
                        break
                    if path is not None and time.monotonic() - saved > SAVE_SECONDS:
                        state.save(path)
                        saved = time.monotonic()
                if not done:
                    crashed(state, worker)
            finally:
                worker.stop()
                state.seconds = before + time.monotonic() - started
                if path is not None:
                    state.save(path)


def lines_of(worker: Worker) -> Iterator[dict[str, Any]]:
    """What a worker reports, until it ends or hangs."""
    while True:
        try:
            line = worker.lines.get(timeout=HUNG_SECONDS)
        except queue.Empty:
            worker.stop()
            return
        if line is None:
            return
        yield json.loads(line)


def report(state: State, line: dict[str, Any]) -> None:
    """Add a line, and print the scripts of its failures."""
    for failure in line["failures"]:
        if failure["given"] is not None and state.failed < SHORTENED:
            arguments = (failure["operation"], state.job["seed"], failure["case"], failure["variant"])
            with contextlib.suppress(Exception):  # the whole case fails then
                failure["calls"] = shortest(*arguments, failure["call"])
    state.add(line)
    for failure in line["failures"]:
        show(state, failure)


def show(state: State, failure: dict[str, Any]) -> None:
    print(f"\n{script(failure, state.job['seed'])}", file=sys.stderr, flush=True)


def crashed(state: State, worker: Worker) -> None:
    """A failure for each call that ran as the worker ended; the next worker leaves their cases out."""
    message, running = worker.how_it_ended(), worker.running()
    if not running:
        raise RuntimeError(message)
    failures = []
    for operation, case, variant, call in running:
        failures.append(
            {
                "operation": operation,
                "case": case,
                "variant": variant,
                "call": call,
                "given": None,
                "message": message,
                "calls": [],
            }
        )
    state.skipped += [case for _, case, _, _ in running]
    nothing = {"next": state.next, "cases": 0, "operations": {}, "variants": {}}
    report(state, nothing | {"failures": failures})


@contextlib.contextmanager
def progress_bar(calls: int, seconds: float, by_time: bool) -> Iterator[Any]:
    """A function that shows how far a state is, beside a bar where rich is installed."""
    try:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
    except ImportError:
        yield lambda state: None
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.fields[calls]:,} calls"),
        TextColumn("{task.fields[rate]:,}/s"),
        TextColumn("{task.fields[failed]} failures"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as bar:
        began = time.monotonic()
        total = seconds if by_time else calls
        task = bar.add_task("fuzz", total=total, calls=0, rate=0, failed=0)

        def show_progress(state: State) -> None:
            done = time.monotonic() - began if by_time else state.calls
            rate = int(state.calls / max(state.seconds, 1e-9))
            bar.update(task, completed=done, calls=state.calls, rate=rate, failed=state.failed)

        yield show_progress


def parse(arguments: Sequence[str] | None) -> tuple[argparse.ArgumentParser, argparse.Namespace]:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("--calls", type=int, help=f"end after so many calls (default: {CALLS:,})")
    parser.add_argument("--minutes", type=float, help="end after so many minutes")
    parser.add_argument("--seed", type=int, default=0, help="of all that is drawn (default: 0)")
    parser.add_argument(
        "--isa", nargs="+", default=(), help="instruction sets of C (default: all of this CPU)"
    )
    parser.add_argument("--backend", nargs="+", default=(), help="backends (default: all)")
    parser.add_argument(
        "--operations",
        nargs="+",
        choices=tuple(OPERATIONS),
        metavar="NAME",
        default=tuple(OPERATIONS),
        help=f"of {', '.join(OPERATIONS)} (default: all)",
    )
    parser.add_argument(
        "--threads-of-python", type=int, default=1, metavar="K", help="so many cases at once (default: 1)"
    )
    parser.add_argument(
        "--sanitize",
        choices=sanitize.CHOICES,
        help="build the extension with GCC's sanitizers, and run on that",
    )
    parser.add_argument("--first-failure", action="store_true", help="end as soon as a call fails")
    parser.add_argument(
        "--state", type=Path, metavar="FILE", help="go on from this file, and keep it up to date"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the statistics to this file too")
    return parser, parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    parser, options = parse(arguments)
    if options.calls is None:
        options.calls = CALLS if options.minutes is None else 10**15
    seconds = 1e9 if options.minutes is None else 60 * options.minutes
    if options.calls < 1 or seconds <= 0 or options.seed < 0 or not 1 <= options.threads_of_python <= 64:
        parser.error("wanted at least 1 call, minutes above 0, a seed of 0 or more and 1 to 64 threads")
    if options.sanitize and not sanitize.running():
        again = sys.argv[1:] if arguments is None else list(arguments)
        return sanitize.run_command(options.sanitize, "tests.fuzz", again)
    try:
        job = {
            "seed": options.seed,
            "threads": options.threads_of_python,
            "operations": list(options.operations),
            "variants": variants(options.backend, options.isa),
        }
        found = options.state is not None and options.state.exists()
        state = State.load(options.state, job) if found else State(job)
    except (OSError, ValueError) as error:
        parser.error(str(error))
    status = 0
    with progress_bar(options.calls, seconds, options.minutes is not None) as progress:
        progress(state)
        try:
            run(state, options.calls, seconds, options.state, progress, options.first_failure)
        except KeyboardInterrupt:
            print("stopped", file=sys.stderr)
            status = 130
    text = json.dumps(state.line())
    print(text)
    if options.json is not None:
        options.json.write_text(text + "\n")
    return status or int(state.failed > 0)


if __name__ == "__main__":
    for number in (signal.SIGINT, signal.SIGTERM):  # a shell may have it ignored
        signal.signal(number, signal.default_int_handler)
    sys.exit(main())
