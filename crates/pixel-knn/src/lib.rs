//! The k-nearest-neighbour baseline on raw pixels or mean patch tokens
