//! Holds docs/SPEC.md to the constants.
