//! Image anomaly datasets: reading, protocols, checking and loading
