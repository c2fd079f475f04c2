//! The matrix engine: profiles, cells, runner and records
