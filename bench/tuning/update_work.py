"""update-work: what a number of an optimiser's update counts in the choice of a number of threads."""

from .harness import Case, Experiment, main

EXPERIMENT = Experiment(
    key="update-work",
    reason="An update moves several arrays, so that a second thread pays sooner than for a copy.",
    variants=(
        {"NUMBER_WORK": "1"},
        {"NUMBER_WORK": "4"},
    ),
    cases=(
        Case("sgd", (32768,), threads=2),
        Case("sgd", (65536,), threads=2),
        Case("sgd", (131072,), threads=2),
    ),
)

if __name__ == "__main__":
    raise SystemExit(main(EXPERIMENT))
