"""rows-to-share: rows from which threads share the rows of a product on AMX."""

from .harness import Case, Experiment, main

EXPERIMENT = Experiment(
    key="rows-to-share",
    reason="Where all panels fit into L2, threads may share the rows instead of a few panels.",
    variants=(
        {"MIN_ROWS_TO_SHARE": "64"},
        {"MIN_ROWS_TO_SHARE": "1024"},
        {"MIN_ROWS_TO_SHARE": "(1 << 30)"},
    ),
    cases=(
        Case("forward", (1024, 288, 96, 3), threads=2, precision="medium"),
        Case("forward", (256, 288, 96, 3), threads=2, precision="medium"),
    ),
)

if __name__ == "__main__":
    raise SystemExit(main(EXPERIMENT))
