//! The operations that ViTs and decoders spend their time in, every one with a gradient
