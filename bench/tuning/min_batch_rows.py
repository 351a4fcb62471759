"""min-batch-rows: rows from which a product may have the batch in lanes."""

from .harness import Case, Experiment, main

EXPERIMENT = Experiment(
    key="min-batch-rows",
    reason=(
        "One lane for each sum of few rows is less accurate than NumPy's product, which spreads each over "
        "several vectors."
    ),
    variants=(
        {"MIN_BATCH_ROWS": "1"},
        {"MIN_BATCH_ROWS": "4"},
        {"MIN_BATCH_ROWS": "16"},
    ),
    cases=(
        Case("forward", (4, 784, 240, 5)),
        Case("forward", (8, 784, 240, 5)),
        Case("forward", (12, 288, 96, 3)),
    ),
    errors=True,
)

if __name__ == "__main__":
    raise SystemExit(main(EXPERIMENT))
