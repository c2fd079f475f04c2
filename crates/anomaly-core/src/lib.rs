//! The contract that every anomaly-detection method implements
