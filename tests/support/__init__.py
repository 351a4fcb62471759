"""What several test modules share: cases, inputs, layouts, error bounds and asserts."""
