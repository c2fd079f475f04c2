//! A step on CUDA in one pass: which kernel, and launched with what.
//!
//! The rules are written once, over [`Number`](crate::number::Number). Here a rule is not computed but written down
//! (`formula`), which makes the text of a kernel (`text`) that the device compiles at the first step (`device`).
//! Constants are arguments of the kernel, so the text of one step serves the next. nvcc can't compile these with the
//! program, as it does the kernels of `vit-ops`: there the rules exist only as Rust.
//!
//! What is launched with which arguments is written over [`Machine`]: in a program that is a GPU, in the tests the host,
//! which runs the same texts thread by thread (`on_host`).

#[cfg(feature = "cuda")]
pub(crate) mod device;
pub(crate) mod formula;
#[cfg(test)]
mod on_host;
mod text;

use candle_core::{Result, bail};
pub(crate) use kernel_launch::Arg;
use kernel_launch::Grid;

use crate::GradientChange;
use crate::sweep::Rule;
use formula::Formula;

/// The type of a parameter's numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Precision {
    F32,
    F64,
}

/// What a kernel does to each element of a parameter of which type.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Kernel {
    pub(crate) formula: Formula,
    pub(crate) precision: Precision,
}

/// What runs kernels.
pub(crate) trait Machine {
    /// Numbers of one type in the memory that kernels see.
    type Array;

    /// `len` numbers of type f64 with any values.
    fn sums(&self, len: usize) -> Result<Self::Array>;

    /// Runs a kernel after those launched before.
    fn launch(&self, kernel: &Kernel, grid: Grid, args: &mut [Arg<'_, Self::Array>]) -> Result<()>;

    /// The numbers of an array of [`Machine::sums`], after all kernels launched before.
    fn numbers(&self, sums: &Self::Array) -> Result<Vec<f64>>;
}

/// A parameter, its gradient and its states.
#[derive(Debug)]
pub(crate) struct Elements<'a, A> {
    pub(crate) precision: Precision,
    pub(crate) count: usize,
    /// An array from an element on, as the gradient.
    pub(crate) value: (&'a mut A, usize),
    pub(crate) gradient: (&'a A, usize),
    /// One array each.
    pub(crate) states: &'a mut [A],
}

/// Threads a block.
pub(crate) const THREADS: u32 = 256;
/// More than any card runs at one time; beyond, a thread takes several elements, and there are no more sums than these.
const MOST_BLOCKS: usize = 4096;

fn blocks(count: usize) -> u32 {
    count.div_ceil(THREADS as usize).min(MOST_BLOCKS) as u32
}

/// Applies `rule` to all elements, and gives the sum of what it measures. Waits for the kernel only if it measures.
pub(crate) fn pass<const STATES: usize, R: Rule<STATES>, M: Machine>(
    machine: &M,
    rule: R,
    change: GradientChange,
    elements: Elements<'_, M::Array>,
) -> Result<f64> {
    let Elements { precision, count, value, gradient, states } = elements;
    if states.len() != STATES {
        bail!("a rule of {STATES} states was given {}", states.len())
    }
    if count == 0 {
        return Ok(0.0);
    }
    let (formula, constants) = Formula::of(rule, change);
    let blocks = blocks(count);
    let mut sums = if formula.measured.is_some() { Some(machine.sums(blocks as usize)?) } else { None };
    let mut args = vec![Arg::Size(count), Arg::Write(value.0, value.1), Arg::Read(gradient.0, gradient.1)];
    args.extend(states.iter_mut().map(|state| Arg::Write(state, 0)));
    args.extend(sums.as_mut().map(|sums| Arg::Write(sums, 0)));
    args.extend(constants.into_iter().map(|constant| match precision {
        Precision::F32 => Arg::F32(constant as f32),
        Precision::F64 => Arg::F64(constant),
    }));
    let grid = Grid { blocks: (blocks, 1), threads: THREADS };
    machine.launch(&Kernel { formula, precision }, grid, &mut args)?;
    drop(args);
    match sums {
        Some(sums) => Ok(machine.numbers(&sums)?.iter().sum()),
        None => Ok(0.0),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::cell::RefCell;

    use candle_core::Result;

    use super::{Arg, Elements, Grid, Kernel, Machine, Precision, blocks, pass};
    use crate::GradientChange;
    use crate::number::Number;
    use crate::sweep::{Changed, Rule};

    /// Writes launches down. Its arrays are names.
    #[derive(Default)]
    struct Recorder {
        launches: RefCell<Vec<(Kernel, u32, String)>>,
    }

    impl Machine for Recorder {
        type Array = &'static str;

        fn sums(&self, len: usize) -> Result<&'static str> {
            assert_eq!(len, 2);
            Ok("sums")
        }

        fn launch(&self, kernel: &Kernel, grid: Grid, args: &mut [Arg<'_, &'static str>]) -> Result<()> {
            assert_eq!(grid.threads, 256);
            self.launches.borrow_mut().push((kernel.clone(), grid.blocks.0, format!("{args:?}")));
            Ok(())
        }

        fn numbers(&self, sums: &&'static str) -> Result<Vec<f64>> {
            assert_eq!(*sums, "sums");
            Ok(vec![1.0, 2.5])
        }
    }

    /// `value - rate * gradient`, which measures the gradient if it should.
    #[derive(Clone, Copy)]
    struct Along {
        rate: f64,
        measures: bool,
    }

    impl Rule<1> for Along {
        fn change<N: Number>(&self, value: N, gradient: N, [state]: [N; 1]) -> Changed<N, 1> {
            Ok((value.minus(&gradient.scaled(self.rate)?)?, [state]))
        }

        fn measure<N: Number>(&self, gradient: &N, _: &[N; 1]) -> std::result::Result<Option<N>, N::Error> {
            Ok(self.measures.then(|| gradient.clone()))
        }
    }

    fn elements<'a>(
        value: &'a mut &'static str,
        states: &'a mut [&'static str],
        count: usize,
    ) -> Elements<'a, &'static str> {
        Elements { precision: Precision::F32, count, value: (value, 3), gradient: (&"gradient", 4), states }
    }

    #[test]
    fn arguments_come_in_the_texts_order_and_sums_only_where_something_is_measured() {
        let machine = Recorder::default();
        let change = GradientChange { scale: 0.5, limit: 2.0 };
        let (mut value, mut states) = ("value", ["state"]);
        for (rate, measures, sum) in [(0.25, false, 0.0), (0.125, false, 0.0), (0.25, true, 3.5)] {
            let rule = Along { rate, measures };
            let found = pass(&machine, rule, change, elements(&mut value, &mut states, 300)).unwrap();
            assert_eq!(found, sum);
        }
        let launches = machine.launches.into_inner();
        let args = |sums: &str, rate: &str| {
            format!(
                "[Size(300), Write(\"value\", 3), Read(\"gradient\", 4), Write(\"state\", 0), {sums}\
                 F32(0.5), F32(2.0), F32(-2.0), F32({rate})]"
            )
        };
        assert_eq!(launches[0].2, args("", "0.25"));
        assert_eq!(launches[1].2, args("", "0.125"));
        assert_eq!(launches[2].2, args("Write(\"sums\", 0), ", "0.25"));
        assert!(launches.iter().all(|launch| launch.1 == 2));
        // Another rate is no other kernel.
        assert_eq!(launches[0].0, launches[1].0);
        assert_ne!(launches[0].0, launches[2].0);
    }

    #[test]
    fn nothing_is_launched_for_no_elements_or_with_other_states() {
        let machine = Recorder::default();
        let (mut value, mut states) = ("value", ["state", "another"]);
        let rule = Along { rate: 0.1, measures: true };
        let change = GradientChange::default();
        assert_eq!(pass(&machine, rule, change, elements(&mut value, &mut states[..1], 0)).unwrap(), 0.0);
        let message = pass(&machine, rule, change, elements(&mut value, &mut states, 9)).unwrap_err();
        assert!(message.to_string().contains("1 states was given 2"), "{message}");
        assert!(machine.launches.into_inner().is_empty());
    }

    #[test]
    fn every_element_has_a_thread_up_to_the_most_blocks() {
        assert_eq!([1, 256, 257, 1 << 20, 1 << 40].map(blocks), [1, 1, 2, 4096, 4096]);
    }
}
