//! Keeps a parser's panic on a damaged file from ending the program.

use crate::Error;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Runs a third-party parser or reader; its panics become errors.
///
/// candle's GGUF and pickle readers check most lengths but not all (an alignment of 0, an empty argument list);
/// such files come from users, so a panic in there must not leave this crate.
///
/// # Errors
/// The reader's own, or one for its panic.
pub(crate) fn caught<T>(read: impl FnOnce() -> candle_core::Result<T>) -> candle_core::Result<T> {
    // Unwind safety: whatever the closure was building is dropped, and it only borrows bytes it cannot change.
    catch_unwind(AssertUnwindSafe(read))
        .unwrap_or_else(|_| Err(candle_core::Error::Msg("its contents contradict each other".into())))
}

/// As [`caught`], for the header of a file `origin` of a `format`.
///
/// # Errors
/// [`Error::Malformed`] with the parser's own reason.
pub(crate) fn guarded<T>(
    origin: &str,
    format: &'static str,
    parse: impl FnOnce() -> candle_core::Result<T>,
) -> Result<T, Error> {
    let malformed = |error: candle_core::Error| Error::Malformed {
        origin: origin.to_owned(),
        format,
        reason: error.to_string(),
    };
    caught(parse).map_err(malformed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panicking_parser_gives_an_error_that_names_the_file() {
        let quiet = std::panic::take_hook();
        std::panic::set_hook(Box::new(|_| {}));
        let result = guarded::<()>("some/model.gguf", "GGUF", || panic!("divide by zero"));
        std::panic::set_hook(quiet);
        let message = result.err().map(|error| error.to_string()).unwrap_or_default();
        assert!(message.contains("some/model.gguf") && message.contains("GGUF"), "{message}");
    }
}
