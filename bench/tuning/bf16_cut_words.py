"""bf16-cut-words: words in one running sum of AVX512-BF16."""

from .harness import Case, Experiment, main

EXPERIMENT = Experiment(
    key="bf16-cut-words",
    reason=(
        "The sums of a run pass through memory; beside the rounding to bfloat16, that of a longer run "
        "does not show."
    ),
    variants=(
        {"CUT_WORDS": "256"},
        {"CUT_WORDS": "512"},
        {"CUT_WORDS": "2048"},
    ),
    cases=(
        Case("forward", (1024, 1024, 1024, 2), precision="medium"),
        Case("forward", (2048, 2048, 2048, 2), precision="medium"),
        Case("forward", (512, 2048, 256, 5), precision="medium"),
        Case("forward", (64, 2048, 512, 2), precision="medium"),
    ),
)

if __name__ == "__main__":
    raise SystemExit(main(EXPERIMENT))
