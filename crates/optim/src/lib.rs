//! Optimisers, schedules and gradient clipping with state that can be saved and restored
