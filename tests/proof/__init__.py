"""The long proofs: `make proof` runs them with small counts, `make soak` with the full ones."""
