//! Vectors of numbers: a kernel is written once, for every instruction set and for f32 as for f64.
//!
//! f32 takes the widest vectors that the processor has when the program runs (AVX-512, AVX2, or plain numbers). f64 is
//! there for the tests of gradients and goes number by number, through the same kernels.
//!
//! The exponential, and the normal distribution that GELU needs, are polynomials of our own fit (by least squares
//! weighted to the least largest relative error, in f64); what each is off by is asserted below.
// A kernel is compiled for an instruction set only where all of it is inlined into the function that was dispatched to.
#![allow(clippy::inline_always)]

use candle_core::WithDType;
use pulp::{Arch, Simd, WithSimd};

/// The widest vectors that the processor has, or none with the feature `portable`.
pub(crate) fn arch() -> Arch {
    if cfg!(feature = "portable") { Arch::Scalar } else { Arch::new() }
}

/// A type the kernels are written for.
pub(crate) trait Real: WithDType + Default {
    const ZERO: Self;
    const ONE: Self;
    /// The most negative finite number.
    const LOWEST: Self;

    /// Runs a kernel with the widest vectors there are.
    fn run<K: Kernel<Self>>(kernel: K) -> K::Output;

    fn of(value: f64) -> Self;
    fn root(self) -> Self;
}

/// Something to do with vectors of `T`.
pub(crate) trait Kernel<T: Real> {
    type Output;
    /// Should be inlined always.
    fn run<L: Lanes<Number = T>>(self, lanes: L) -> Self::Output;
}

impl Real for f32 {
    const ZERO: Self = 0.0;
    const ONE: Self = 1.0;
    const LOWEST: Self = f32::MIN;

    #[inline]
    fn run<K: Kernel<Self>>(kernel: K) -> K::Output {
        struct Dispatched<K>(K);
        impl<K: Kernel<f32>> WithSimd for Dispatched<K> {
            type Output = K::Output;
            #[inline(always)]
            fn with_simd<S: Simd>(self, simd: S) -> Self::Output {
                self.0.run(Single(simd))
            }
        }
        arch().dispatch(Dispatched(kernel))
    }

    fn of(value: f64) -> Self {
        value as f32
    }
    fn root(self) -> Self {
        self.sqrt()
    }
}

impl Real for f64 {
    const ZERO: Self = 0.0;
    const ONE: Self = 1.0;
    const LOWEST: Self = f64::MIN;

    #[inline]
    fn run<K: Kernel<Self>>(kernel: K) -> K::Output {
        kernel.run(Double)
    }

    fn of(value: f64) -> Self {
        value
    }
    fn root(self) -> Self {
        self.sqrt()
    }
}

/// The most numbers in a vector.
const WIDEST: usize = 16;

/// Vectors and what can be done with them.
pub(crate) trait Lanes: Copy {
    type Number: Real;
    type Vector: Copy;

    /// Whole vectors, and the numbers left over.
    fn split(self, numbers: &[Self::Number]) -> (&[Self::Vector], &[Self::Number]);
    fn split_mut(self, numbers: &mut [Self::Number]) -> (&mut [Self::Vector], &mut [Self::Number]);
    /// Fewer numbers than a vector has, zeros behind them.
    fn load_part(self, numbers: &[Self::Number]) -> Self::Vector;
    /// The first numbers of a vector.
    fn store_part(self, numbers: &mut [Self::Number], vector: Self::Vector);

    fn splat(self, number: Self::Number) -> Self::Vector;
    fn add(self, a: Self::Vector, b: Self::Vector) -> Self::Vector;
    fn sub(self, a: Self::Vector, b: Self::Vector) -> Self::Vector;
    fn mul(self, a: Self::Vector, b: Self::Vector) -> Self::Vector;
    fn div(self, a: Self::Vector, b: Self::Vector) -> Self::Vector;
    /// `a b + c`.
    fn mul_add(self, a: Self::Vector, b: Self::Vector, c: Self::Vector) -> Self::Vector;
    /// The larger one; `a` if either is no number.
    fn larger(self, a: Self::Vector, b: Self::Vector) -> Self::Vector;
    fn exp(self, x: Self::Vector) -> Self::Vector;
    /// The standard normal distribution up to `x`, and its density there.
    fn normal(self, x: Self::Vector) -> (Self::Vector, Self::Vector);

    /// `1 / (1 + exp(-x))`.
    #[inline(always)]
    fn sigmoid(self, x: Self::Vector) -> Self::Vector {
        let one = self.splat(Self::Number::ONE);
        let exp = self.exp(self.sub(self.splat(Self::Number::ZERO), x));
        self.div(one, self.add(one, exp))
    }
}

/// A constant of either type.
#[inline(always)]
pub(crate) fn constant<L: Lanes>(lanes: L, value: f64) -> L::Vector {
    lanes.splat(L::Number::of(value))
}

/// Whole vectors and the numbers left over.
type Split<'a, L> = (&'a [<L as Lanes>::Vector], &'a [<L as Lanes>::Number]);

// Loops where `map` of arrays would do: its closures are no part of the function that was dispatched to.

#[inline(always)]
fn split<L: Lanes, const K: usize>(lanes: L, inputs: [&[L::Number]; K], length: usize) -> [Split<'_, L>; K] {
    let mut all = [(&[][..], &[][..]); K];
    for k in 0..K {
        all[k] = lanes.split(&inputs[k][..length]);
    }
    all
}

/// Vector `index` of each input.
#[inline(always)]
fn vectors<L: Lanes, const K: usize>(lanes: L, inputs: [Split<'_, L>; K], index: usize) -> [L::Vector; K] {
    let mut all = [lanes.splat(L::Number::ZERO); K];
    for k in 0..K {
        all[k] = inputs[k].0[index];
    }
    all
}

/// What is left over of each input.
#[inline(always)]
fn parts<L: Lanes, const K: usize>(lanes: L, inputs: [Split<'_, L>; K]) -> [L::Vector; K] {
    let mut all = [lanes.splat(L::Number::ZERO); K];
    for k in 0..K {
        all[k] = lanes.load_part(inputs[k].1);
    }
    all
}

/// `f` of what `out` holds and of the `inputs`, into `out`.
#[inline(always)]
pub(crate) fn update<L: Lanes, const K: usize>(
    lanes: L,
    out: &mut [L::Number],
    inputs: [&[L::Number]; K],
    f: impl Fn(L::Vector, [L::Vector; K]) -> L::Vector,
) {
    let length = out.len();
    let inputs = split(lanes, inputs, length);
    let (whole, rest) = lanes.split_mut(out);
    for (i, out) in whole.iter_mut().enumerate() {
        *out = f(*out, vectors(lanes, inputs, i));
    }
    if !rest.is_empty() {
        let value = f(lanes.load_part(rest), parts(lanes, inputs));
        lanes.store_part(rest, value);
    }
}

/// `f` of the `inputs`, into `out`.
#[inline(always)]
pub(crate) fn map<L: Lanes, const K: usize>(
    lanes: L,
    out: &mut [L::Number],
    inputs: [&[L::Number]; K],
    f: impl Fn([L::Vector; K]) -> L::Vector,
) {
    update(
        lanes,
        out,
        inputs,
        #[inline(always)]
        |_, inputs| f(inputs),
    );
}

/// The sums of what `f` makes of the `inputs`, which are of one length.
#[inline(always)]
pub(crate) fn sum<L: Lanes, const K: usize, const S: usize>(
    lanes: L,
    inputs: [&[L::Number]; K],
    f: impl Fn([L::Vector; K]) -> [L::Vector; S],
) -> [L::Number; S] {
    let length = inputs[0].len();
    let inputs = split(lanes, inputs, length);
    let zero = lanes.splat(L::Number::ZERO);
    // Two, so that one need not wait for the other.
    let mut sums = [[zero; S]; 2];
    for i in 0..inputs[0].0.len() {
        let values = f(vectors(lanes, inputs, i));
        for (sum, value) in sums[i % 2].iter_mut().zip(values) {
            *sum = lanes.add(*sum, value);
        }
    }
    let mut totals = [L::Number::ZERO; S];
    for s in 0..S {
        totals[s] = total(lanes, lanes.add(sums[0][s], sums[1][s]));
    }
    let rest = inputs[0].1.len();
    if rest > 0 {
        let values = f(parts(lanes, inputs));
        for (sum, value) in totals.iter_mut().zip(values) {
            let mut numbers = [L::Number::ZERO; WIDEST];
            lanes.store_part(&mut numbers[..rest], value);
            for &number in &numbers[..rest] {
                *sum += number;
            }
        }
    }
    totals
}

/// The sum of a vector's numbers.
#[inline(always)]
fn total<L: Lanes>(lanes: L, vector: L::Vector) -> L::Number {
    let width = size_of::<L::Vector>() / size_of::<L::Number>();
    let mut numbers = [L::Number::ZERO; WIDEST];
    lanes.store_part(&mut numbers[..width], vector);
    // Halves onto each other: a chain of additions would take four times as long.
    let mut half = width / 2;
    while half > 0 {
        for i in 0..half {
            let upper = numbers[half + i];
            numbers[i] += upper;
        }
        half /= 2;
    }
    numbers[0]
}

/// The largest of some numbers; the lowest number there is, of none. Undefined with NaN.
#[inline(always)]
pub(crate) fn largest<L: Lanes>(lanes: L, numbers: &[L::Number]) -> L::Number {
    let (whole, rest) = lanes.split(numbers);
    let mut largest = L::Number::of(f64::NEG_INFINITY);
    let mut lanes_largest = [lanes.splat(largest); 2];
    for (i, &vector) in whole.iter().enumerate() {
        lanes_largest[i % 2] = lanes.larger(lanes_largest[i % 2], vector);
    }
    let vector = lanes.larger(lanes_largest[0], lanes_largest[1]);
    let width = size_of::<L::Vector>() / size_of::<L::Number>();
    let mut both = [largest; WIDEST];
    lanes.store_part(&mut both[..width], vector);
    for &number in both[..width].iter().chain(rest) {
        if number > largest {
            largest = number;
        }
    }
    largest
}

/// Numbers to their exponentials after `shift` was taken off; returns their sum.
#[inline(always)]
pub(crate) fn exponentials<L: Lanes>(lanes: L, numbers: &mut [L::Number], shift: L::Number) -> L::Number {
    let shift = lanes.splat(shift);
    let zero = lanes.splat(L::Number::ZERO);
    let (whole, rest) = lanes.split_mut(numbers);
    let mut sums = [zero; 2];
    for (i, vector) in whole.iter_mut().enumerate() {
        *vector = lanes.exp(lanes.sub(*vector, shift));
        sums[i % 2] = lanes.add(sums[i % 2], *vector);
    }
    let mut sum = total(lanes, lanes.add(sums[0], sums[1]));
    if !rest.is_empty() {
        let value = lanes.exp(lanes.sub(lanes.load_part(rest), shift));
        lanes.store_part(rest, value);
        for &mut number in rest {
            sum += number;
        }
    }
    sum
}

/// f32 in the vectors of `S`.
#[derive(Clone, Copy)]
struct Single<S>(S);

/// `(exp(r) - 1 - r) / r^2` for `|r| <= ln(2) / 2`, lowest power first; relative error of the exponential 5e-11.
const EXP: [f32; 6] = [0.5, 0.166_666_66, 0.041_666_295, 0.008_333_498, 0.001_394_468_8, 0.000_197_903_14];
/// ln 2 in two parts; the first has few digits, so that products with small whole numbers are exact.
const LN_2: (f32, f32) = (0.693_359_4, -0.000_212_194_44);
/// Below, the result is 0, as from 125.5 ln 2 = 86.99 on, where it would soon leave the normal numbers; above, infinite.
const EXP_RANGE: (f32, f32) = (-87.0, 88.722_83);
/// 1.5 * 2^23: adding it rounds to a whole number, which then lies in the lowest bits.
const ROUND: f32 = 12_582_912.0;

/// `(1 - Phi(t)) exp(t^2 / 2)` as a polynomial in `u = 1 / (1 + 0.35 t)`, for t in 0..=14, lowest power (1) first;
/// relative error 3e-8.
const MILLS: [f32; 9] = [
    0.139_621_4,
    0.139_861_87,
    0.119_832_87,
    0.105_507_97,
    -0.023_109_747,
    0.159_174_03,
    -0.255_714_15,
    0.143_971_64,
    -0.029_145_919,
];
const MILLS_STEP: f32 = 0.35;

impl<S: Simd> Lanes for Single<S> {
    type Number = f32;
    type Vector = S::f32s;

    #[inline(always)]
    fn split(self, numbers: &[f32]) -> (&[S::f32s], &[f32]) {
        S::as_simd_f32s(numbers)
    }
    #[inline(always)]
    fn split_mut(self, numbers: &mut [f32]) -> (&mut [S::f32s], &mut [f32]) {
        S::as_mut_simd_f32s(numbers)
    }
    #[inline(always)]
    fn load_part(self, numbers: &[f32]) -> S::f32s {
        self.0.partial_load_f32s(numbers)
    }
    #[inline(always)]
    fn store_part(self, numbers: &mut [f32], vector: S::f32s) {
        self.0.partial_store_f32s(numbers, vector);
    }
    #[inline(always)]
    fn splat(self, number: f32) -> S::f32s {
        self.0.splat_f32s(number)
    }
    #[inline(always)]
    fn add(self, a: S::f32s, b: S::f32s) -> S::f32s {
        self.0.add_f32s(a, b)
    }
    #[inline(always)]
    fn sub(self, a: S::f32s, b: S::f32s) -> S::f32s {
        self.0.sub_f32s(a, b)
    }
    #[inline(always)]
    fn mul(self, a: S::f32s, b: S::f32s) -> S::f32s {
        self.0.mul_f32s(a, b)
    }
    #[inline(always)]
    fn div(self, a: S::f32s, b: S::f32s) -> S::f32s {
        self.0.div_f32s(a, b)
    }
    #[inline(always)]
    fn mul_add(self, a: S::f32s, b: S::f32s, c: S::f32s) -> S::f32s {
        self.0.mul_add_e_f32s(a, b, c)
    }
    #[inline(always)]
    fn larger(self, a: S::f32s, b: S::f32s) -> S::f32s {
        self.0.select_f32s(self.0.less_than_f32s(a, b), b, a)
    }

    /// `2^n exp(r)` with n whole and `|r| <= ln(2) / 2`.
    #[inline(always)]
    fn exp(self, x: S::f32s) -> S::f32s {
        let Self(simd) = self;
        let round = self.splat(ROUND);
        let rounded = self.mul_add(x, self.splat(std::f32::consts::LOG2_E), round);
        let n = self.sub(rounded, round);
        let r = self.mul_add(n, self.splat(-LN_2.0), x);
        let r = self.mul_add(n, self.splat(-LN_2.1), r);
        let mut p = self.splat(2.0 * EXP[5]);
        for &coefficient in EXP[..5].iter().rev() {
            p = self.mul_add(p, r, self.splat(2.0 * coefficient));
        }
        // Twice the exponential of r, and half of 2^n: n up to 128 must not overflow.
        let two = self.splat(2.0);
        let p = self.add(self.mul_add(self.mul(r, r), p, self.mul(two, r)), two);
        let bits = simd.add_u32s(simd.transmute_u32s_f32s(rounded), simd.splat_u32s(126));
        let power = simd.transmute_f32s_u32s(simd.wrapping_dyn_shl_u32s(bits, simd.splat_u32s(23)));
        let result = self.mul(p, power);
        // Comparisons that NaN fails: it goes through.
        let (low, high) = EXP_RANGE;
        let result = simd.select_f32s(simd.less_than_f32s(x, self.splat(low)), self.splat(0.0), result);
        simd.select_f32s(simd.less_than_f32s(self.splat(high), x), self.splat(f32::INFINITY), result)
    }

    #[inline(always)]
    fn normal(self, x: S::f32s) -> (S::f32s, S::f32s) {
        let Self(simd) = self;
        // `abs_f32s` has no instruction of its own and is not inlined: a call for each vector.
        let below = simd.less_than_f32s(x, self.splat(0.0));
        let t = simd.select_f32s(below, self.sub(self.splat(0.0), x), x);
        let bell = self.exp(self.mul(self.mul(t, t), self.splat(-0.5)));
        let one = self.splat(1.0);
        let u = self.div(one, self.mul_add(t, self.splat(MILLS_STEP), one));
        let mut p = self.splat(MILLS[8]);
        for &coefficient in MILLS[..8].iter().rev() {
            p = self.mul_add(p, u, self.splat(coefficient));
        }
        let tail = self.mul(self.mul(p, u), bell);
        let cumulated = simd.select_f32s(below, tail, self.sub(one, tail));
        (cumulated, self.mul(bell, self.splat(DENSITY_AT_ZERO as f32)))
    }
}

/// `1 / sqrt(2 pi)`.
const DENSITY_AT_ZERO: f64 = 0.398_942_280_401_432_7;

/// f64, one by one.
#[derive(Clone, Copy)]
struct Double;

impl Lanes for Double {
    type Number = f64;
    type Vector = f64;

    #[inline(always)]
    fn split(self, numbers: &[f64]) -> (&[f64], &[f64]) {
        (numbers, &[])
    }
    #[inline(always)]
    fn split_mut(self, numbers: &mut [f64]) -> (&mut [f64], &mut [f64]) {
        (numbers, &mut [])
    }
    #[inline(always)]
    fn load_part(self, numbers: &[f64]) -> f64 {
        numbers.first().copied().unwrap_or_default()
    }
    #[inline(always)]
    fn store_part(self, numbers: &mut [f64], vector: f64) {
        if let Some(first) = numbers.first_mut() {
            *first = vector;
        }
    }
    #[inline(always)]
    fn splat(self, number: f64) -> f64 {
        number
    }
    #[inline(always)]
    fn add(self, a: f64, b: f64) -> f64 {
        a + b
    }
    #[inline(always)]
    fn sub(self, a: f64, b: f64) -> f64 {
        a - b
    }
    #[inline(always)]
    fn mul(self, a: f64, b: f64) -> f64 {
        a * b
    }
    #[inline(always)]
    fn div(self, a: f64, b: f64) -> f64 {
        a / b
    }
    #[inline(always)]
    fn mul_add(self, a: f64, b: f64, c: f64) -> f64 {
        a * b + c
    }
    #[inline(always)]
    fn larger(self, a: f64, b: f64) -> f64 {
        if a < b { b } else { a }
    }
    #[inline(always)]
    fn exp(self, x: f64) -> f64 {
        x.exp()
    }
    #[inline(always)]
    fn normal(self, x: f64) -> (f64, f64) {
        (0.5 * libm::erfc(-x * std::f64::consts::FRAC_1_SQRT_2), DENSITY_AT_ZERO * (-0.5 * x * x).exp())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::{Double, Kernel, Lanes, Real, Single, exponentials, largest, map, sum};

    /// The results of one function on every instruction set there is here.
    fn everywhere<K: Kernel<f32, Output = Vec<f32>> + Copy>(kernel: K) -> Vec<(&'static str, Vec<f32>)> {
        let ours = vec![("portable", kernel.run(Single(pulp::Scalar))), ("dispatched", f32::run(kernel))];
        #[cfg(target_arch = "x86_64")]
        let ours = {
            struct Wide<K>(K);
            impl<K: Kernel<f32>> pulp::WithSimd for Wide<K> {
                type Output = K::Output;
                #[inline(always)]
                fn with_simd<S: pulp::Simd>(self, simd: S) -> K::Output {
                    self.0.run(Single(simd))
                }
            }
            use pulp::Simd;
            let mut all = ours;
            if let Some(simd) = pulp::x86::V3::try_new() {
                all.push(("AVX2", Simd::vectorize(simd, Wide(kernel))));
            }
            if let Some(simd) = pulp::x86::V4::try_new() {
                all.push(("AVX-512", Simd::vectorize(simd, Wide(kernel))));
            }
            all
        };
        ours
    }

    #[derive(Clone, Copy)]
    enum Function {
        Exp,
        Cumulated,
        Density,
        Sigmoid,
    }

    #[derive(Clone, Copy)]
    struct Of<'a>(&'a [f32], Function);

    impl Kernel<f32> for Of<'_> {
        type Output = Vec<f32>;
        #[inline(always)]
        fn run<L: Lanes<Number = f32>>(self, lanes: L) -> Vec<f32> {
            let mut out = vec![0.0; self.0.len()];
            map(lanes, &mut out, [self.0], |[x]| match self.1 {
                Function::Exp => lanes.exp(x),
                Function::Cumulated => lanes.normal(x).0,
                Function::Density => lanes.normal(x).1,
                Function::Sigmoid => lanes.sigmoid(x),
            });
            out
        }
    }

    fn exact(function: Function, x: f64) -> f64 {
        match function {
            Function::Exp => x.exp(),
            Function::Cumulated => Double.normal(x).0,
            Function::Density => Double.normal(x).1,
            Function::Sigmoid => 1.0 / (1.0 + (-x).exp()),
        }
    }

    /// Every one of many floats between two numbers.
    fn range(from: f32, to: f32) -> Vec<f32> {
        (0..200_003).map(|i| from + (to - from) * (i as f32 / 200_002.0)).collect()
    }

    /// The worst of `|found - exact| / (absolute + relative * |exact|)`.
    fn worst(function: Function, (from, to): (f32, f32), (absolute, relative): (f64, f64)) -> f64 {
        let x = range(from, to);
        let mut worst = 0.0_f64;
        for (name, found) in everywhere(Of(&x, function)) {
            for (&x, &found) in x.iter().zip(&found) {
                let exact = exact(function, f64::from(x));
                let share = (f64::from(found) - exact).abs() / (absolute + relative * exact.abs());
                assert!(share <= 1.0, "{name}: {x}: {found} for {exact}, {share} of the bound");
                worst = worst.max(share);
            }
        }
        worst
    }

    /// The distance between 1 and the next f32.
    const ULP: f64 = 1.192_092_9e-7;

    #[test]
    fn functions_are_as_close_as_they_say() {
        // Each bound is met, and not by far: a better fit should tighten it.
        for (function, range, bound) in [
            (Function::Exp, (-86.9, 88.7), (0.0, 1.1 * ULP)),
            (Function::Cumulated, (-5.0, 10.0), (0.5 * ULP, 2.0 * ULP)),
            (Function::Cumulated, (-2.0, 10.0), (0.0, 4.0 * ULP)),
            (Function::Cumulated, (-13.0, -2.0), (0.0, 50.0 * ULP)),
            (Function::Density, (-13.0, 13.0), (0.5 * ULP, 1.5 * ULP)),
            (Function::Sigmoid, (-80.0, 80.0), (0.0, 2.5 * ULP)),
        ] {
            let share = worst(function, range, bound);
            assert!(share > 0.3, "the bound is {} times what is needed", 1.0 / share);
        }
    }

    #[test]
    fn ends_are_what_they_should_be() {
        let x = [f32::NEG_INFINITY, f32::MIN, -104.0, -87.1, 88.8, f32::MAX, f32::INFINITY, 0.0];
        for (name, found) in everywhere(Of(&x, Function::Exp)) {
            let inf = f32::INFINITY;
            assert_eq!(found, [0.0, 0.0, 0.0, 0.0, inf, inf, inf, 1.0], "{name}");
        }
        for (name, found) in everywhere(Of(&x, Function::Cumulated)) {
            assert_eq!(found[..7], [0.0, 0.0, 0.0, 0.0, 1.0, 1.0, 1.0], "{name}");
            assert!((found[7] - 0.5).abs() < 1e-7, "{name}: {}", found[7]);
        }
        for function in [Function::Exp, Function::Cumulated, Function::Density, Function::Sigmoid] {
            for (name, found) in everywhere(Of(&[f32::NAN], function)) {
                assert!(found[0].is_nan(), "{name}");
            }
        }
    }

    #[test]
    fn sums_and_maxima_take_every_length() {
        #[derive(Clone, Copy)]
        struct Both<'a>(&'a [f32]);
        impl Kernel<f32> for Both<'_> {
            type Output = Vec<f32>;
            #[inline(always)]
            fn run<L: Lanes<Number = f32>>(self, lanes: L) -> Vec<f32> {
                let one = lanes.splat(1.0);
                let [plain, more] = sum(lanes, [self.0], |[x]| [x, lanes.add(x, one)]);
                let mut zeros = vec![3.0; self.0.len()];
                vec![plain, more, largest(lanes, self.0), exponentials(lanes, &mut zeros, 3.0)]
            }
        }
        for length in 1..70_u16 {
            let x: Vec<f32> = (1..=length).map(|i| -f32::from(i)).collect();
            let n = f32::from(length);
            let wanted = -n * (n + 1.0) / 2.0;
            for (name, found) in everywhere(Both(&x)) {
                assert_eq!(found, [wanted, wanted + n, -1.0, n], "{name}, {length}");
            }
        }
    }
}
