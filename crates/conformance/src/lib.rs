//! Numeric conformance: a case is one safetensors file with inputs, expected tensors, a configuration and the rules by
//! which computed tensors are compared with the expected ones. This crate reads cases, compares, and runs all cases
//! below a directory. It knows none of the code under test: a crate hands in its [`Unit`]s.
//!
//! ```
//! use conformance::{Case, HostTensor, Outputs, Unit, compare};
//!
//! fn double(case: &Case) -> Result<Outputs, conformance::UnitError> {
//!     let x = case.input("in.x")?;
//!     let y = x.to_f32_vec()?.iter().map(|x| 2.0 * x).collect();
//!     Ok(Outputs::from([("out.y".to_owned(), HostTensor::f32(x.shape.clone(), y))]))
//! }
//! let unit = Unit { method: "arithmetic", unit: "double", run: double };
//!
//! let mut case = Case::default();
//! case.tensors.insert("in.x".to_owned(), HostTensor::f32([2], vec![1.0, 2.0]));
//! case.tensors.insert("out.y".to_owned(), HostTensor::f32([2], vec![2.0, 5.0]));
//! let comparison = compare(&case, &(unit.run)(&case)?);
//! assert!(!comparison.passed()); // 4 is not 5, and no rule allows for it
//! # Ok::<(), conformance::UnitError>(())
//! ```

mod case;
mod compare;
mod context;
mod error;
mod pattern;
mod rule;
mod runner;
mod self_test;
mod tensor;

pub use case::{Case, is_expected};
pub use compare::{Comparison, Outputs, Pool, Verdict, compare};
pub use context::{context, set_context};
pub use error::Error;
pub use pattern::matches;
pub use rule::{Pooled, Rule, SignFree};
pub use runner::{CaseLine, Outcome, Summary, Unit, UnitError, case_files, missing_units, run_dir};
pub use self_test::self_test;
pub use tensor::{HostData, HostTensor};
