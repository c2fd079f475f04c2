//! One line per method: names to builders and loaders
