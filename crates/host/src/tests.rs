//! Tests with processes.
