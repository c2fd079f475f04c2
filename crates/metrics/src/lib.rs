//! Anomaly-detection metrics on plain slices: exact, and refused where they are undefined
