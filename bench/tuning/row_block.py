"""row-block: shares of L2 for rows and for packed panels."""

from .harness import Case, Experiment, main

EXPERIMENT = Experiment(
    key="row-block",
    reason="Rows that do not all fit into half of L2 stay there in chunks, while packed panels pass by.",
    variants=(
        {"ROW_BLOCK_BYTES": "((l2_bytes) / 8)", "PANELS_BYTES": "((l2_bytes) / 8 * 5)"},
        {"ROW_BLOCK_BYTES": "((l2_bytes) / 4)", "PANELS_BYTES": "((l2_bytes) / 8 * 3)"},
        {"ROW_BLOCK_BYTES": "((l2_bytes) / 8 * 3)", "PANELS_BYTES": "((l2_bytes) / 8 * 3)"},
        {"RESIDENT_ROWS_BYTES": "((l2_bytes) / 4)"},
    ),
    cases=(
        Case("forward", (1024, 1024, 1024, 2)),
        Case("forward", (2048, 2048, 2048, 2)),
    ),
)

if __name__ == "__main__":
    raise SystemExit(main(EXPERIMENT))
