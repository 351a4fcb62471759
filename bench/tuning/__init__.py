"""The experiments behind the constants of csrc/: README.md."""
