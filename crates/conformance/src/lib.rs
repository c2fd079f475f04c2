//! Reads numeric conformance cases and compares computed tensors by their own rules
