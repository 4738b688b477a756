//! The models are in `tests/`; see `scripts/loom.sh`.
