"""prefetch-rows-ahead: how many rows ahead low tiles fetch the right operand."""

from .harness import Case, Experiment, main

EXPERIMENT = Experiment(
    key="prefetch-rows-ahead",
    reason="Tiles of few rows wait for the right operand; MAX_WAITING_ROWS 0 fetches nothing.",
    variants=(
        {"PREFETCH_ROWS_AHEAD": "32"},
        {"PREFETCH_ROWS_AHEAD": "64"},
        {"MAX_WAITING_ROWS": "0"},
    ),
    cases=(
        Case("frozen", (1, 1024, 1024, 2)),
        Case("frozen", (4, 1024, 1024, 2)),
    ),
)

if __name__ == "__main__":
    raise SystemExit(main(EXPERIMENT))
