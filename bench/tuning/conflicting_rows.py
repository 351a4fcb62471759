"""conflicting-rows: the height of tiles whose rows fall into one set of L1."""

from .harness import Case, Experiment, main

EXPERIMENT = Experiment(
    key="conflicting-rows",
    reason="A tile of 8 such rows fits where a set has 8 lines.",
    variants=(
        {"MAX_CONFLICTING_ROWS": "4"},
        {"MAX_CONFLICTING_ROWS": "12"},
    ),
    cases=(
        Case("forward", (1024, 1024, 1024, 2)),
        Case("forward", (256, 2048, 256, 3)),
    ),
)

if __name__ == "__main__":
    raise SystemExit(main(EXPERIMENT))
