"""depth-block-bytes: the share of L2 for a slice of a packed panel."""

from .harness import Case, Experiment, main

EXPERIMENT = Experiment(
    key="depth-block-bytes",
    reason=(
        "A slice stays in L2 while tiles pass over it; several runs of depth in a slice keep the sums in L1."
    ),
    variants=(
        {"DEPTH_BLOCK_BYTES": "1"},
        {"DEPTH_BLOCK_BYTES": "((l2_bytes) / 4)"},
        {"DEPTH_BLOCK_BYTES": "(l2_bytes)"},
    ),
    cases=(
        Case("forward", (2048, 2048, 2048, 2)),
        Case("forward", (64, 8192, 512, 2)),
        Case("frozen", (100, 784, 240, 5)),
    ),
)

if __name__ == "__main__":
    raise SystemExit(main(EXPERIMENT))
