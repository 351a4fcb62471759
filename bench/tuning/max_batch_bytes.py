"""max-batch-bytes: the largest batch that is packed as a whole."""

from .harness import Case, Experiment, main

EXPERIMENT = Experiment(
    key="max-batch-bytes",
    reason="The workspace of a product with the batch in lanes should stay small.",
    variants=(
        {"MAX_BATCH_BYTES": "(1 << 20)"},
        {"MAX_BATCH_BYTES": "(16 << 20)"},
    ),
    cases=(
        Case("forward", (150, 8192, 500, 2)),
        Case("forward", (300, 8192, 500, 2)),
    ),
)

if __name__ == "__main__":
    raise SystemExit(main(EXPERIMENT))
