use std::any::Any;
use std::sync::OnceLock;

static CONTEXT: OnceLock<Box<dyn Any + Send + Sync>> = OnceLock::new();

/// Tells the units of this process something beside their cases, once: the device to compute on, as the type that the
/// units' tensor library has for it. Units that know nothing of it compute as ever.
///
/// # Errors
///
/// Gives it back if they were told before.
pub fn set_context<T: Any + Send + Sync>(context: T) -> Result<(), T> {
    let mut context = Some(context);
    CONTEXT.get_or_init(|| Box::new(context.take()));
    context.map_or(Ok(()), Err)
}

/// What [`set_context`] was given, if it was of this type.
pub fn context<T: Any + Send + Sync>() -> Option<&'static T> {
    CONTEXT.get()?.downcast_ref::<Option<T>>()?.as_ref()
}

#[cfg(test)]
mod tests {
    use super::{context, set_context};

    #[test]
    fn units_are_told_once_and_by_type() {
        assert_eq!(context::<u64>(), None);
        assert_eq!(set_context(7_u64), Ok(()));
        assert_eq!(set_context("again"), Err("again"));
        assert_eq!(context::<u64>(), Some(&7));
        assert_eq!(context::<i8>(), None);
    }
}
