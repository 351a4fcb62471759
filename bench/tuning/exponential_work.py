"""exponential-work: what an exponential counts in the choice of a number of threads."""

from .harness import Case, Experiment, main

EXPERIMENT = Experiment(
    key="exponential-work",
    reason=(
        "Small arrays of an activation with an exponential are worth a second thread sooner than copies are."
    ),
    variants=(
        {"EXPONENTIAL_WORK": "1"},
        {"EXPONENTIAL_WORK": "2"},
        {"EXPONENTIAL_WORK": "8"},
    ),
    cases=(
        Case("activation sigmoid", (16384,), threads=2),
        Case("activation sigmoid", (32768,), threads=2),
        Case("activation sigmoid", (65536,), threads=2),
    ),
)

if __name__ == "__main__":
    raise SystemExit(main(EXPERIMENT))
