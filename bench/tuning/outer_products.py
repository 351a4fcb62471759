"""outer-products: where the gradient of a linear weight is a sum of outer products."""

from .harness import Case, Experiment, main

EXPERIMENT = Experiment(
    key="outer-products",
    reason=(
        "Outer products write each sum once, the tiles of a product twice; OUTER_PRODUCT_ROWS 0 uses "
        "tiles alone."
    ),
    variants=(
        {"OUTER_PRODUCT_ROWS": "0"},
        {"OUTER_PRODUCT_ROWS": "64", "OUTER_PRODUCT_VECTORS": "1"},
    ),
    cases=(
        Case("linear_grad_weight", (1, 1024, 1024, 1)),
        Case("linear_grad_weight", (8, 1024, 1024, 1)),
        Case("linear_grad_weight", (32, 1024, 1024, 1)),
        Case("linear_grad_weight", (64, 1024, 1024, 1)),
        Case("linear_grad_weight", (1, 288, 288, 1)),
        Case("linear_grad_weight", (8, 288, 288, 1)),
        Case("linear_grad_weight", (32, 288, 288, 1)),
        Case("linear_grad_weight", (64, 288, 288, 1)),
        Case("linear_grad_weight", (1, 64, 64, 1)),
    ),
)

if __name__ == "__main__":
    raise SystemExit(main(EXPERIMENT))
