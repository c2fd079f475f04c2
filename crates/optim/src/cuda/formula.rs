//! A rule written down instead of computed.

use std::cell::RefCell;
use std::convert::Infallible;

use crate::GradientChange;
use crate::number::Number;
use crate::sweep::Rule;

/// One operation. Operands are the lines before it, by their places, and constants, by theirs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Line {
    Value,
    Gradient,
    State(usize),
    Plus(usize, usize),
    Minus(usize, usize),
    Times(usize, usize),
    Over(usize, usize),
    Larger(usize, usize),
    Root(usize),
    Shifted(usize, usize),
    Scaled(usize, usize),
    Divided(usize, usize),
    /// NaN stays, as in the next.
    AtMost(usize, usize),
    AtLeast(usize, usize),
}

/// What is done to an element of a parameter, whatever the constants are.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Formula {
    pub(crate) lines: Vec<Line>,
    /// How many constants the lines take.
    pub(crate) constants: usize,
    /// The line of the parameter's new value.
    pub(crate) value: usize,
    /// The lines of the new states.
    pub(crate) states: Vec<usize>,
    /// The line of what is added up over the parameter.
    pub(crate) measured: Option<usize>,
}

impl Formula {
    /// What `rule` does with gradients changed on the way, and its constants in the order of their places.
    pub(crate) fn of<const STATES: usize, R: Rule<STATES>>(
        rule: R,
        change: GradientChange,
    ) -> (Self, Vec<f64>) {
        let page = RefCell::default();
        let value = Written::new(&page, Line::Value);
        let Ok(gradient) = Written::new(&page, Line::Gradient).scaled(change.scale);
        let gradient = gradient.within(change.limit);
        let states = std::array::from_fn(|state| Written::new(&page, Line::State(state)));
        let Ok((value, states)) = rule.change(value, gradient, states);
        let Ok(measured) = rule.measure(&gradient, &states);
        let (value, states) = (value.line, states.map(|state| state.line).to_vec());
        let measured = measured.map(|measured| measured.line);
        let Page { lines, constants } = page.into_inner();
        (Self { lines, constants: constants.len(), value, states, measured }, constants)
    }
}

/// The lines so far.
#[derive(Debug, Default)]
struct Page {
    lines: Vec<Line>,
    constants: Vec<f64>,
}

/// A number that is only a line on a page.
#[derive(Debug, Clone, Copy)]
struct Written<'a> {
    page: &'a RefCell<Page>,
    line: usize,
}

impl<'a> Written<'a> {
    fn new(page: &'a RefCell<Page>, line: Line) -> Self {
        let lines = &mut page.borrow_mut().lines;
        lines.push(line);
        Self { page, line: lines.len() - 1 }
    }

    /// A line after this one.
    fn then(self, line: Line) -> Self {
        Self::new(self.page, line)
    }

    /// The place of another constant.
    fn constant(self, value: f64) -> usize {
        let constants = &mut self.page.borrow_mut().constants;
        constants.push(value);
        constants.len() - 1
    }

    /// No number further from zero than `limit`; NaN stays.
    fn within(self, limit: f64) -> Self {
        let (high, low) = (self.constant(limit), self.constant(-limit));
        let cut = self.then(Line::AtMost(self.line, high));
        cut.then(Line::AtLeast(cut.line, low))
    }
}

impl Number for Written<'_> {
    type Error = Infallible;

    fn plus(&self, other: &Self) -> Result<Self, Infallible> {
        Ok(self.then(Line::Plus(self.line, other.line)))
    }
    fn minus(&self, other: &Self) -> Result<Self, Infallible> {
        Ok(self.then(Line::Minus(self.line, other.line)))
    }
    fn times(&self, other: &Self) -> Result<Self, Infallible> {
        Ok(self.then(Line::Times(self.line, other.line)))
    }
    fn over(&self, other: &Self) -> Result<Self, Infallible> {
        Ok(self.then(Line::Over(self.line, other.line)))
    }
    fn larger(&self, other: &Self) -> Result<Self, Infallible> {
        Ok(self.then(Line::Larger(self.line, other.line)))
    }
    fn root(&self) -> Result<Self, Infallible> {
        Ok(self.then(Line::Root(self.line)))
    }
    fn shifted(&self, by: f64) -> Result<Self, Infallible> {
        Ok(self.then(Line::Shifted(self.line, self.constant(by))))
    }
    fn scaled(&self, by: f64) -> Result<Self, Infallible> {
        Ok(self.then(Line::Scaled(self.line, self.constant(by))))
    }
    fn divided(&self, by: f64) -> Result<Self, Infallible> {
        Ok(self.then(Line::Divided(self.line, self.constant(by))))
    }
}
