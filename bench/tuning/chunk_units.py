"""chunk-units: pieces of grad_weight that share a packed table of x."""

from .harness import Case, Experiment, main

EXPERIMENT = Experiment(
    key="chunk-units",
    reason=(
        "With few rows, a tile of columns should come back to cache lines and pages that the one before "
        "it touched."
    ),
    variants=(
        {"CHUNK_UNITS_A_ROW": "4"},
        {"CHUNK_UNITS_A_ROW": "16"},
        {"CHUNK_UNITS_A_ROW": "32"},
        {"CHUNK_UNITS_A_ROW": "512"},
    ),
    cases=(
        Case("grad_weight", (1, 1024, 1024, 2)),
        Case("grad_weight", (4, 1024, 1024, 2)),
    ),
)

if __name__ == "__main__":
    raise SystemExit(main(EXPERIMENT))
