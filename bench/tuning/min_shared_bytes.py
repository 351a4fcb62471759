"""min-shared-bytes: bytes of panels that one thread packs alone."""

from .harness import Case, Experiment, main

EXPERIMENT = Experiment(
    key="min-shared-bytes",
    reason="A thread team takes longer to begin than packing a few panels does.",
    variants=(
        {"MIN_SHARED_BYTES": "0"},
        {"MIN_SHARED_BYTES": "(64 << 10)"},
        {"MIN_SHARED_BYTES": "(512 << 10)"},
    ),
    cases=(
        Case("forward", (32, 64, 64, 2), threads=2),
        Case("forward", (15, 288, 96, 3), threads=2),
        Case("forward", (64, 288, 96, 3), threads=2),
    ),
)

if __name__ == "__main__":
    raise SystemExit(main(EXPERIMENT))
