"""Benchmarks of fastact against what people use instead.  They need a checkout, not an install."""
