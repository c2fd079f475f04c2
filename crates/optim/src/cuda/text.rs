//! The text of a kernel, in what CUDA and C++ have in common.

use super::formula::{Formula, Line};
use super::{Kernel, Precision, THREADS};

/// The name of the function in every text.
pub(crate) const NAME: &str = "step";

impl Kernel {
    /// A function [`NAME`] of the count of elements, the value, the gradient, the states, the sums of the blocks if it
    /// measures, and the constants.
    pub(crate) fn text(&self) -> String {
        let Self { formula: Formula { lines, constants, value, states, measured }, precision } = self;
        let number = precision.name();
        let mut parameters = vec![
            "const size_t count".to_owned(),
            format!("{number}* __restrict__ value"),
            format!("const {number}* __restrict__ gradient"),
        ];
        parameters.extend((0..states.len()).map(|state| format!("{number}* __restrict__ state{state}")));
        parameters.extend(measured.map(|_| "double* __restrict__ sums".to_owned()));
        parameters.extend((0..*constants).map(|constant| format!("const {number} c{constant}")));

        let mut each = Vec::new();
        for (place, line) in lines.iter().enumerate() {
            each.push(format!("const {number} t{place} = {};", precision.expression(*line)));
        }
        each.push(format!("value[i] = t{value};"));
        for (state, line) in states.iter().enumerate() {
            // What is only read needs no writing.
            if lines.get(*line) != Some(&Line::State(state)) {
                each.push(format!("state{state}[i] = t{line};"));
            }
        }
        each.extend(measured.map(|line| format!("sum += (double)t{line};")));

        let (before, after) = match measured {
            Some(_) => ("    double sum = 0.0;\n", ADD_UP.replace("THREADS", &THREADS.to_string())),
            None => ("", String::new()),
        };
        let (parameters, each) = (parameters.join(",\n    "), each.join("\n        "));
        format!(
            "\
extern \"C\" __global__ void __launch_bounds__({THREADS}) {NAME}(
    {parameters}
) {{
{before}    const size_t stride = (size_t)gridDim.x * {THREADS};
    for (size_t i = (size_t)blockIdx.x * {THREADS} + threadIdx.x; i < count; i += stride) {{
        {each}
    }}
{after}}}
"
        )
    }
}

/// The sum of a block, in pairs of threads that are always the same: the same bits from run to run.
const ADD_UP: &str = "    __shared__ double all[THREADS];
    all[threadIdx.x] = sum;
    for (unsigned half = THREADS / 2; half > 0; half /= 2) {
        __syncthreads();
        if (threadIdx.x < half) all[threadIdx.x] += all[threadIdx.x + half];
    }
    if (threadIdx.x == 0) sums[blockIdx.x] = all[0];
";

impl Precision {
    /// The type's name in C.
    fn name(self) -> &'static str {
        match self {
            Self::F32 => "float",
            Self::F64 => "double",
        }
    }

    /// Comparisons are those of the host's pass, so that NaN goes the same way.
    fn expression(self, line: Line) -> String {
        match line {
            Line::Value => "value[i]".to_owned(),
            Line::Gradient => "gradient[i]".to_owned(),
            Line::State(state) => format!("state{state}[i]"),
            Line::Plus(a, b) => format!("t{a} + t{b}"),
            Line::Minus(a, b) => format!("t{a} - t{b}"),
            Line::Times(a, b) => format!("t{a} * t{b}"),
            Line::Over(a, b) => format!("t{a} / t{b}"),
            Line::Larger(a, b) => format!("t{a} < t{b} ? t{b} : t{a}"),
            Line::Root(a) => match self {
                Self::F32 => format!("sqrtf(t{a})"),
                Self::F64 => format!("sqrt(t{a})"),
            },
            Line::Shifted(a, c) => format!("t{a} + c{c}"),
            Line::Scaled(a, c) => format!("t{a} * c{c}"),
            Line::Divided(a, c) => format!("t{a} / c{c}"),
            Line::AtMost(a, c) => format!("c{c} < t{a} ? c{c} : t{a}"),
            Line::AtLeast(a, c) => format!("t{a} < c{c} ? c{c} : t{a}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::GradientChange;
    use crate::cuda::formula::Formula;
    use crate::cuda::{Kernel, Precision};
    use crate::number::Number;
    use crate::sweep::{Changed, Rule};

    /// Momentum, measured if it should be.
    #[derive(Clone, Copy)]
    struct Roll {
        rate: f64,
        measured: bool,
    }

    impl Rule<2> for Roll {
        fn change<N: Number>(&self, value: N, gradient: N, [unused, roll]: [N; 2]) -> Changed<N, 2> {
            let roll = roll.towards(&gradient, 0.1)?;
            Ok((value.minus(&roll.scaled(self.rate)?)?, [unused, roll]))
        }

        fn measure<N: Number>(&self, _: &N, states: &[N; 2]) -> Result<Option<N>, N::Error> {
            Ok(self.measured.then(|| states[1].clone()))
        }
    }

    fn text(rule: Roll, change: GradientChange, precision: Precision) -> String {
        Kernel { formula: Formula::of(rule, change).0, precision }.text()
    }

    const PLAIN: Roll = Roll { rate: 0.25, measured: false };

    #[test]
    fn a_rule_is_written_line_by_line() {
        let wanted = "\
extern \"C\" __global__ void __launch_bounds__(256) step(
    const size_t count,
    float* __restrict__ value,
    const float* __restrict__ gradient,
    float* __restrict__ state0,
    float* __restrict__ state1,
    const float c0,
    const float c1,
    const float c2,
    const float c3,
    const float c4
) {
    const size_t stride = (size_t)gridDim.x * 256;
    for (size_t i = (size_t)blockIdx.x * 256 + threadIdx.x; i < count; i += stride) {
        const float t0 = value[i];
        const float t1 = gradient[i];
        const float t2 = t1 * c0;
        const float t3 = c1 < t2 ? c1 : t2;
        const float t4 = t3 < c2 ? c2 : t3;
        const float t5 = state0[i];
        const float t6 = state1[i];
        const float t7 = t4 - t6;
        const float t8 = t7 * c3;
        const float t9 = t6 + t8;
        const float t10 = t9 * c4;
        const float t11 = t0 - t10;
        value[i] = t11;
        state1[i] = t9;
    }
}
";
        let change = GradientChange { scale: 0.5, limit: 3.0 };
        assert_eq!(text(PLAIN, change, Precision::F32), wanted);
        assert_eq!(Formula::of(PLAIN, change).1, [0.5, 3.0, -3.0, 0.1, 0.25]);
        let wide = text(PLAIN, change, Precision::F64);
        assert_eq!(wide, wanted.replace("float", "double"));
    }

    #[test]
    fn constants_make_no_other_text() {
        let usual = GradientChange::default();
        let wanted = text(PLAIN, usual, Precision::F32);
        assert_eq!(text(Roll { rate: 1.0, ..PLAIN }, usual, Precision::F32), wanted);
        assert_eq!(text(PLAIN, GradientChange { scale: 0.1, limit: 1.0 }, Precision::F32), wanted);
    }

    #[test]
    fn what_is_measured_is_added_up() {
        let measured = text(Roll { measured: true, ..PLAIN }, GradientChange::default(), Precision::F32);
        for part in [
            "    double* __restrict__ sums,\n    const float c0",
            "sum += (double)t9;",
            "sums[blockIdx.x] = all[0];",
        ] {
            assert!(measured.contains(part), "{part} is not in {measured}");
        }
    }
}
