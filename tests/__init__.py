"""One file per module: `tests/test_<module>.py`; `tests/proof/` holds what takes longer."""
