"""min-work-per-thread: work below which a second thread costs more than it brings."""

from .harness import Case, Experiment, main

EXPERIMENT = Experiment(
    key="min-work-per-thread",
    reason="A thread team takes some microseconds to begin and to end.",
    variants=(
        {"MIN_WORK_PER_THREAD": "16384"},
        {"MIN_WORK_PER_THREAD": "32768"},
        {"MIN_WORK_PER_THREAD": "131072"},
        {"MIN_WORK_PER_THREAD": "262144"},
    ),
    cases=(
        Case("activation relu", (65536,), threads=2),
        Case("activation relu", (131072,), threads=2),
        Case("activation relu", (262144,), threads=2),
        Case("activation relu", (524288,), threads=2),
        Case("forward", (32, 64, 64, 2), threads=2),
        Case("forward", (64, 64, 64, 2), threads=2),
        Case("forward", (64, 128, 64, 2), threads=2),
    ),
)

if __name__ == "__main__":
    raise SystemExit(main(EXPERIMENT))
