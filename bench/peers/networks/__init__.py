"""The contenders on whole networks."""
