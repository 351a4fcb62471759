"""gather-vectors: the most pieces for a table of weights that stays in L1."""

from .harness import Case, Experiment, main

EXPERIMENT = Experiment(
    key="gather-vectors",
    reason="With many pieces a table in L1 has few outputs, and sums of grad_x pass through L2 too often.",
    variants=(
        {"L1_TABLE_PIECES": "4"},
        {"L1_TABLE_PIECES": "256"},
    ),
    cases=(
        Case("grad_x", (777, 300, 300, 8)),
        Case("grad_x", (1024, 288, 96, 9)),
        Case("grad_x", (4096, 1024, 256, 16)),
        Case("grad_x", (500, 300, 64, 32)),
    ),
)

if __name__ == "__main__":
    raise SystemExit(main(EXPERIMENT))
