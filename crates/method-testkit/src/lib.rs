//! The generic tests that every method must pass
