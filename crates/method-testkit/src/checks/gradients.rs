//! Every trainable parameter gets a gradient.

use crate::Suite;
use crate::failure::{Problem, problem};

pub(crate) fn check(suite: &Suite<'_>) -> Result<(), Problem> {
    let Some(gradients) = &suite.gradients else { return Ok(()) };
    let parameters = gradients()?;
    if parameters.is_empty() {
        return problem("the suite's training step has no parameter");
    }
    let without: Vec<&str> =
        parameters.iter().filter(|(_, got)| !got).map(|(name, _)| name.as_str()).collect();
    if without.is_empty() {
        return Ok(());
    }
    problem(format!(
        "{} of {} parameters got no gradient: {}",
        without.len(),
        parameters.len(),
        without.join(", ")
    ))
}
