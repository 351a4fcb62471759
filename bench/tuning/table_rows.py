"""table-rows: rows of the table that the winners' sums gather from."""

from .harness import Case, Experiment, main

EXPERIMENT = Experiment(
    key="table-rows",
    reason="The table stays in L1 with the most columns that it takes.",
    variants=({"TABLE_ROWS": "32"},),
    cases=(
        Case("grad_x", (1024, 1024, 1024, 2)),
        Case("grad_weight", (1024, 1024, 1024, 2)),
        Case("grad_x", (1024, 288, 96, 3)),
        Case("grad_weight", (1024, 288, 96, 3)),
    ),
)

if __name__ == "__main__":
    raise SystemExit(main(EXPERIMENT))
