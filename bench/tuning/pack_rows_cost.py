"""pack-rows-cost: rows whose sums take as long as packing a table of weights."""

from .harness import Case, Experiment, main

EXPERIMENT = Experiment(
    key="pack-rows-cost",
    reason=(
        "The number of chunks of rows balances the threads against packing all weights once for each chunk."
    ),
    variants=(
        {"PACK_ROWS_COST": "0"},
        {"PACK_ROWS_COST": "1"},
        {"PACK_ROWS_COST": "8"},
    ),
    cases=(
        Case("grad_x", (1024, 288, 96, 3), threads=2),
        Case("grad_x", (100, 784, 240, 5), threads=2),
        Case("grad_x", (1500, 96, 256, 2), threads=2),
    ),
)

if __name__ == "__main__":
    raise SystemExit(main(EXPERIMENT))
