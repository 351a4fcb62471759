"""partial-tables: tables whose sums are added up before those of all runs."""

from .harness import Case, Experiment, main

EXPERIMENT = Experiment(
    key="partial-tables",
    reason="With many pieces a table has a few terms for each sum, so that few tables should share a total.",
    variants=(
        {"PARTIAL_TABLES": "4"},
        {"PARTIAL_TABLES": "16"},
        {"PARTIAL_TABLES": "32"},
    ),
    cases=(
        Case("grad_x", (500, 64, 256, 16)),
        Case("grad_x", (1000, 64, 640, 1)),
        Case("grad_weight", (4096, 64, 32, 16)),
        Case("grad_weight", (4096, 64, 32, 1)),
    ),
    errors=True,
)

if __name__ == "__main__":
    raise SystemExit(main(EXPERIMENT))
