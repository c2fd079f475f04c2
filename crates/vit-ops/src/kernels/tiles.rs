//! The kernel of bf16 over AMX tiles.
//!
//! A tile is 16 rows of 64 bytes. Four of them hold the sums of 32 rows and 32 columns, two a panel's rows (32 deep),
//! two its columns. What is loaded from where is written once, over [`Unit`]: the processor's tile unit, or in tests a
//! model of it by its manual (Intel 64 and IA-32 Architectures Software Developer's Manual, volume 2, `LDTILECFG`,
//! `TILELOADD`, `TDPBF16PS`, `TILESTORED`).

use std::marker::PhantomData;

use super::panels::{Half, Kernel};

/// What `LDTILECFG` reads: 64 bytes.
#[repr(C, align(64))]
pub(super) struct Configuration {
    palette: u8,
    start_row: u8,
    reserved: [u8; 14],
    row_bytes: [u16; 16],
    rows: [u8; 16],
}

impl Configuration {
    /// Eight tiles of 16 rows of 64 bytes.
    const FULL: Self = {
        let (mut row_bytes, mut rows) = ([0; 16], [0; 16]);
        let mut tile = 0;
        while tile < 8 {
            (row_bytes[tile], rows[tile]) = (64, 16);
            tile += 1;
        }
        Self { palette: 1, start_row: 0, reserved: [0; 14], row_bytes, rows }
    };
}

/// A thread's tile unit.
pub(super) trait Unit {
    /// The unit, with the tiles that `configuration` describes.
    ///
    /// # Safety
    /// The processor and the system must let this process use such a unit.
    unsafe fn start(configuration: &Configuration) -> Self;

    /// Fills tile `TILE` from rows that start `stride` bytes after one another.
    ///
    /// # Safety
    /// All rows must be readable.
    unsafe fn load<const TILE: usize>(&mut self, from: *const u8, stride: usize);

    /// Adds to tile `SUMS` (f32) the products of the bf16 pairs of `ROWS` and `COLUMNS`.
    fn multiply<const SUMS: usize, const ROWS: usize, const COLUMNS: usize>(&mut self);

    /// Writes tile `TILE` to rows that start `stride` bytes after one another.
    ///
    /// # Safety
    /// All rows must be writable.
    unsafe fn store<const TILE: usize>(&mut self, to: *mut u8, stride: usize);
}

/// The kernel over a unit that may be used.
pub(super) struct Tiles<U, const PARTS: usize>(PhantomData<fn() -> U>);

impl<U, const PARTS: usize> Clone for Tiles<U, PARTS> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<U, const PARTS: usize> Copy for Tiles<U, PARTS> {}

impl<U, const PARTS: usize> Tiles<U, PARTS> {
    /// The kernel.
    ///
    /// # Safety
    /// As [`Unit::start`].
    pub(super) unsafe fn new() -> Self {
        Self(PhantomData)
    }
}

const SIDE: usize = 32;

impl<U: Unit, const PARTS: usize> Kernel for Tiles<U, PARTS> {
    type Encoding = Half<PARTS>;
    type Session = U;
    const ROWS: usize = SIDE;
    const COLUMNS: usize = SIDE;
    // A block's columns fill two thirds of the first cache, and each of its rows comes from the second.
    const DEPTH: usize = 512 / PARTS;
    const UNIT: usize = 32;

    fn session(self) -> U {
        // SAFETY: whoever made the kernel has promised it.
        unsafe { U::start(&Configuration::FULL) }
    }

    fn multiply(unit: &mut U, rows: &[u16], columns: &[u16], depth: usize, count: usize, sums: &mut [f32]) {
        assert!(depth <= Self::DEPTH && depth.is_multiple_of(Self::UNIT));
        assert!(rows.len() >= PARTS * SIDE * Self::STRIDE && columns.len() >= PARTS * depth * SIDE);
        assert!(sums.len() >= SIDE * SIDE);
        let block = Pointers {
            rows: rows.as_ptr().cast(),
            row_stride: 2 * Self::STRIDE,
            row_part: 2 * SIDE * Self::STRIDE,
            columns: columns.as_ptr().cast(),
            column_part: 2 * depth * SIDE,
            sums: sums.as_mut_ptr().cast(),
        };
        // SAFETY: the lengths that `Pointers` asks for were checked above.
        unsafe {
            if count > SIDE / 2 {
                block.multiply::<U, PARTS, true>(unit, depth);
            } else {
                block.multiply::<U, PARTS, false>(unit, depth);
            }
        }
    }
}

/// Where one block lies. In bytes: `PARTS` times `row_part` of rows, of which 32 start `row_stride` after one another;
/// `PARTS` times `column_part` of columns, 64 bytes a column and 32 of depth; 32 rows of 128 of sums.
struct Pointers {
    rows: *const u8,
    row_stride: usize,
    row_part: usize,
    columns: *const u8,
    column_part: usize,
    sums: *mut u8,
}

/// Bytes of a row of sums, and of all columns at two depths.
const LINE: usize = 4 * SIDE;

impl Pointers {
    /// Tiles 0 to 3 are the sums (row by row), 4 and 5 the rows, 6 and 7 the columns. Without `BOTH`, only the upper 16
    /// rows.
    ///
    /// # Safety
    /// The memory must be there, for a depth of `depth`, a multiple of 32.
    #[inline(always)]
    unsafe fn multiply<U: Unit, const PARTS: usize, const BOTH: bool>(&self, unit: &mut U, depth: usize) {
        let (lower_rows, lower_sums) = (16 * self.row_stride, 16 * LINE);
        // SAFETY: by this function's contract: each tile is 16 rows of 64 bytes inside of its block.
        unsafe {
            unit.load::<0>(self.sums, LINE);
            unit.load::<1>(self.sums.add(64), LINE);
            if BOTH {
                unit.load::<2>(self.sums.add(lower_sums), LINE);
                unit.load::<3>(self.sums.add(lower_sums + 64), LINE);
            }
            for k in (0..depth).step_by(32) {
                // 32 numbers of two bytes along a row; 16 pairs down the columns.
                let rows = self.rows.add(2 * k);
                let columns = self.columns.add(k / 2 * LINE);
                if PARTS == 2 {
                    // The low rows first, so that the high ones are loaded once for both parts of the columns.
                    unit.load::<6>(columns, LINE);
                    unit.load::<7>(columns.add(64), LINE);
                    Self::rows::<U, BOTH>(unit, rows.add(self.row_part), self.row_stride, lower_rows);
                    Self::products::<U, BOTH>(unit);
                    Self::rows::<U, BOTH>(unit, rows, self.row_stride, lower_rows);
                    Self::products::<U, BOTH>(unit);
                    unit.load::<6>(columns.add(self.column_part), LINE);
                    unit.load::<7>(columns.add(self.column_part + 64), LINE);
                    Self::products::<U, BOTH>(unit);
                } else {
                    unit.load::<6>(columns, LINE);
                    Self::rows::<U, BOTH>(unit, rows, self.row_stride, lower_rows);
                    unit.load::<7>(columns.add(64), LINE);
                    Self::products::<U, BOTH>(unit);
                }
            }
            unit.store::<0>(self.sums, LINE);
            unit.store::<1>(self.sums.add(64), LINE);
            if BOTH {
                unit.store::<2>(self.sums.add(lower_sums), LINE);
                unit.store::<3>(self.sums.add(lower_sums + 64), LINE);
            }
        }
    }

    /// # Safety
    /// 16 rows of 64 bytes must be readable from `rows`, and with `BOTH` from `lower` bytes behind it.
    #[inline(always)]
    unsafe fn rows<U: Unit, const BOTH: bool>(unit: &mut U, rows: *const u8, stride: usize, lower: usize) {
        // SAFETY: by this function's contract.
        unsafe {
            unit.load::<4>(rows, stride);
            if BOTH {
                unit.load::<5>(rows.add(lower), stride);
            }
        }
    }

    #[inline(always)]
    fn products<U: Unit, const BOTH: bool>(unit: &mut U) {
        unit.multiply::<0, 4, 6>();
        unit.multiply::<1, 4, 7>();
        if BOTH {
            unit.multiply::<2, 5, 6>();
            unit.multiply::<3, 5, 7>();
        }
    }
}

#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
#[cfg_attr(feature = "portable", allow(dead_code, reason = "nobody asks for it"))]
pub(super) mod hardware {
    //! The processor's own tile unit, by inline assembly: the compiler's intrinsics are not stable.

    use std::arch::asm;
    use std::arch::x86_64::{__cpuid, __cpuid_count};
    use std::sync::OnceLock;

    use super::{Configuration, Unit};

    /// Whether this process may use bf16 tiles. Asks the system for them once: their state is large, and a process has
    /// to say that it wants it saved.
    pub(in crate::kernels) fn is_available() -> bool {
        static AVAILABLE: OnceLock<bool> = OnceLock::new();
        *AVAILABLE.get_or_init(|| has_instructions() && has_permission())
    }

    /// CPUID leaf 7, EDX: bit 22 AMX-BF16, bit 24 AMX-TILE.
    fn has_instructions() -> bool {
        __cpuid(0).eax >= 7 && __cpuid_count(7, 0).edx >> 22 & 0b101 == 0b101
    }

    /// `arch_prctl(ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA)`; for the whole process, threads that run already among it.
    fn has_permission() -> bool {
        const REQUEST: libc::c_int = 0x1023;
        const TILE_DATA: libc::c_ulong = 18;
        // SAFETY: two numbers go in, nothing in memory is read or written.
        unsafe { libc::syscall(libc::SYS_arch_prctl, REQUEST, TILE_DATA) == 0 }
    }

    /// The unit of the thread that started it: neither sent nor shared.
    pub(in crate::kernels) struct Hardware(std::marker::PhantomData<*mut ()>);

    // Between these blocks the tiles keep their content, though the compiler knows nothing of them: it never uses tiles
    // itself, and the system saves them when it takes the thread off its core.
    impl Unit for Hardware {
        unsafe fn start(configuration: &Configuration) -> Self {
            // SAFETY: reads 64 bytes from a valid reference; may be used by this function's contract.
            unsafe { asm!("ldtilecfg [{0}]", in(reg) configuration, options(nostack, readonly)) };
            Self(std::marker::PhantomData)
        }

        #[inline(always)]
        unsafe fn load<const TILE: usize>(&mut self, from: *const u8, stride: usize) {
            // SAFETY: reads 16 rows, by this function's contract.
            unsafe {
                asm!("tileloadd tmm{t}, [{p} + {s}*1]", t = const TILE, p = in(reg) from, s = in(reg) stride,
                     options(nostack, readonly));
            }
        }

        #[inline(always)]
        fn multiply<const SUMS: usize, const ROWS: usize, const COLUMNS: usize>(&mut self) {
            // SAFETY: touches tiles only.
            unsafe {
                asm!("tdpbf16ps tmm{s}, tmm{r}, tmm{c}", s = const SUMS, r = const ROWS, c = const COLUMNS,
                     options(nostack, nomem));
            }
        }

        #[inline(always)]
        unsafe fn store<const TILE: usize>(&mut self, to: *mut u8, stride: usize) {
            // SAFETY: writes 16 rows, by this function's contract.
            unsafe {
                asm!("tilestored [{p} + {s}*1], tmm{t}", t = const TILE, p = in(reg) to, s = in(reg) stride,
                     options(nostack));
            }
        }
    }

    impl Drop for Hardware {
        fn drop(&mut self) {
            // SAFETY: gives up tiles that only this value stands for.
            unsafe { asm!("tilerelease", options(nostack, nomem)) };
        }
    }
}

#[cfg(test)]
pub(super) mod model {
    //! What the manual says of the unit, in plain code.

    use super::{Configuration, Unit};
    use crate::kernels::panels::from_bf16;

    pub(in crate::kernels) struct Model {
        row_bytes: [usize; 8],
        rows: [usize; 8],
        tiles: [[u8; 1024]; 8],
    }

    impl Unit for Model {
        unsafe fn start(configuration: &Configuration) -> Self {
            // SAFETY: 64 bytes without padding, as the instruction reads them.
            let bytes: &[u8; 64] = unsafe { &*std::ptr::from_ref(configuration).cast() };
            assert_eq!(size_of::<Configuration>(), 64);
            assert_eq!(std::ptr::from_ref(configuration) as usize % 64, 0);
            assert_eq!((bytes[0], bytes[1]), (1, 0), "palette and first row");
            assert!(
                bytes[2..16].iter().chain(&bytes[32..48]).chain(&bytes[56..]).all(|&b| b == 0),
                "reserved"
            );
            let row_bytes =
                std::array::from_fn(|t| u16::from_le_bytes([bytes[16 + 2 * t], bytes[17 + 2 * t]]).into());
            let rows = std::array::from_fn(|t| bytes[48 + t].into());
            assert!(row_bytes.iter().all(|&b| b <= 64) && rows.iter().all(|&r| r <= 16));
            // What a tile holds at first is zero; anything else would show in the sums.
            Self { row_bytes, rows, tiles: [[0xff; 1024]; 8] }
        }

        unsafe fn load<const TILE: usize>(&mut self, from: *const u8, stride: usize) {
            for r in 0..self.rows[TILE] {
                for b in 0..self.row_bytes[TILE] {
                    // SAFETY: by this function's contract.
                    self.tiles[TILE][64 * r + b] = unsafe { *from.add(r * stride + b) };
                }
            }
        }

        fn multiply<const SUMS: usize, const ROWS: usize, const COLUMNS: usize>(&mut self) {
            assert_eq!(self.row_bytes[ROWS] / 4, self.rows[COLUMNS]);
            let half = |tile: usize, row: usize, at: usize| {
                let at = 64 * row + 2 * at;
                from_bf16(u16::from_le_bytes([self.tiles[tile][at], self.tiles[tile][at + 1]]))
            };
            let mut sums = self.tiles[SUMS];
            for m in 0..self.rows[SUMS] {
                for n in 0..self.row_bytes[SUMS] / 4 {
                    let place = 64 * m + 4 * n..64 * m + 4 * n + 4;
                    let mut sum = f32::from_le_bytes(std::array::from_fn(|b| sums[place.start + b]));
                    for k in 0..self.rows[COLUMNS] {
                        sum += half(ROWS, m, 2 * k) * half(COLUMNS, k, 2 * n);
                        sum += half(ROWS, m, 2 * k + 1) * half(COLUMNS, k, 2 * n + 1);
                    }
                    sums[place].copy_from_slice(&sum.to_le_bytes());
                }
            }
            self.tiles[SUMS] = sums;
        }

        unsafe fn store<const TILE: usize>(&mut self, to: *mut u8, stride: usize) {
            for r in 0..self.rows[TILE] {
                for b in 0..self.row_bytes[TILE] {
                    // SAFETY: by this function's contract.
                    unsafe { *to.add(r * stride + b) = self.tiles[TILE][64 * r + b] };
                }
            }
        }
    }
}
