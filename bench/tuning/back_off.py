"""back-off: how long to work on one thread after a thread team that came late."""

from .harness import Case, Experiment, main

EXPERIMENT = Experiment(
    key="back-off",
    reason=(
        "Linux may wake the second thread on the core of the first, where the two wait for each other for "
        "milliseconds."
    ),
    variants=(
        {"SLOW_NANOSECONDS": "((int64_t)1 << 60)"},
        {"SLOW_NANOSECONDS": "100000"},
        {"BACKOFF_FACTOR": "100"},
    ),
    cases=(
        Case("paused", (64, 288, 96, 3), threads=2),
        Case("forward", (64, 288, 96, 3), threads=2),
    ),
)

if __name__ == "__main__":
    raise SystemExit(main(EXPERIMENT))
