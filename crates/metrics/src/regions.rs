//! Connected components of a mask.

/// Which pixels touch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Connectivity {
    /// Left, right, above and below.
    Four,
    /// Those and the diagonal ones, as the PRO metric is defined.
    #[default]
    Eight,
}

/// The regions of one mask.
#[derive(Clone, Debug)]
pub(crate) struct Regions {
    /// Per pixel 0 outside any region, else the region's number from 1.
    pub(crate) labels: Vec<u32>,
    /// Pixels of each region, by number less 1.
    pub(crate) sizes: Vec<u64>,
}

/// Provisional labels that turned out to be one region point to the lowest of them.
struct Parents(Vec<u32>);

impl Parents {
    fn root(&mut self, mut label: u32) -> u32 {
        while self.0[label as usize] != label {
            let grandparent = self.0[self.0[label as usize] as usize];
            self.0[label as usize] = grandparent;
            label = grandparent;
        }
        label
    }

    fn join(&mut self, a: u32, b: u32) -> u32 {
        let (a, b) = (self.root(a), self.root(b));
        let (low, high) = (a.min(b), a.max(b));
        self.0[high as usize] = low;
        low
    }
}

/// Whether any sample is above 0. In blocks: a search that may stop at every sample can't be vectorised.
pub(crate) fn any_set(mask: &[u8]) -> bool {
    mask.chunks(4096).any(|block| block.iter().fold(0, |all, &sample| all | sample) > 0)
}

impl Regions {
    /// Labels the pixels above 0 of a row-major `(height, width)` mask, regions in the order of their first pixel: two
    /// passes with a union-find between them.
    pub(crate) fn of_mask(mask: &[u8], height: usize, width: usize, connectivity: Connectivity) -> Self {
        let mut labels = vec![0_u32; mask.len()];
        let mut parents = Parents(vec![0]);
        for (y, row) in mask.chunks_exact(width.max(1)).enumerate().take(height) {
            if !any_set(row) {
                continue;
            }
            for x in 0..width {
                let at = y * width + x;
                if mask[at] == 0 {
                    continue;
                }
                let diagonal = connectivity == Connectivity::Eight;
                let before = [
                    (x > 0).then(|| at - 1),
                    (y > 0).then(|| at - width),
                    (diagonal && y > 0 && x > 0).then(|| at - width - 1),
                    (diagonal && y > 0 && x + 1 < width).then(|| at - width + 1),
                ];
                let mut label = 0;
                for neighbour in before.into_iter().flatten().map(|i| labels[i]).filter(|&l| l != 0) {
                    label = if label == 0 { neighbour } else { parents.join(label, neighbour) };
                }
                if label == 0 {
                    label = parents.0.len() as u32;
                    parents.0.push(label);
                }
                labels[at] = label;
            }
        }
        let mut sizes = Vec::new();
        let mut numbers = vec![0_u32; parents.0.len()];
        for label in labels.iter_mut().filter(|label| **label != 0) {
            let root = parents.root(*label) as usize;
            if numbers[root] == 0 {
                sizes.push(0);
                numbers[root] = sizes.len() as u32;
            }
            *label = numbers[root];
            sizes[*label as usize - 1] += 1;
        }
        Self { labels, sizes }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn mask(rows: &[&str]) -> (Vec<u8>, usize, usize) {
        let pixels = rows.iter().flat_map(|row| row.bytes().map(|b| u8::from(b == b'#'))).collect();
        (pixels, rows.len(), rows[0].len())
    }

    fn sizes(rows: &[&str], connectivity: Connectivity) -> Vec<u64> {
        let (pixels, height, width) = mask(rows);
        Regions::of_mask(&pixels, height, width, connectivity).sizes
    }

    #[test]
    fn corners_touch_with_eight_neighbours_only() {
        let rows = ["#.#", ".#.", "..#"];
        assert_eq!(sizes(&rows, Connectivity::Eight), [4]);
        assert_eq!(sizes(&rows, Connectivity::Four), [1, 1, 1, 1]);
    }

    #[test]
    fn arms_that_meet_late_are_one_region() {
        assert_eq!(sizes(&["#.#.#", "#.#.#", "#####", ".....", "#...#"], Connectivity::Four), [11, 1, 1]);
        assert_eq!(sizes(&["#...", "..##", ".##."], Connectivity::Eight), [1, 4]);
    }

    #[test]
    fn rows_do_not_wrap_and_a_hole_is_outside() {
        assert_eq!(sizes(&["..#", "#.."], Connectivity::Eight), [1, 1]);
        let (pixels, height, width) = mask(&["###", "#.#", "###"]);
        let regions = Regions::of_mask(&pixels, height, width, Connectivity::Eight);
        assert_eq!((regions.sizes, regions.labels[4]), (vec![8], 0));
        assert!(sizes(&["...", "..."], Connectivity::Eight).is_empty());
    }

    /// The same by flooding from each pixel that is not yet labelled.
    fn flooded(mask: &[u8], height: usize, width: usize, connectivity: Connectivity) -> Vec<u32> {
        let mut labels = vec![0; mask.len()];
        let mut next = 0;
        for start in 0..mask.len() {
            if mask[start] == 0 || labels[start] != 0 {
                continue;
            }
            next += 1;
            let mut open = vec![start];
            labels[start] = next;
            while let Some(at) = open.pop() {
                let (y, x) = ((at / width) as isize, (at % width) as isize);
                for (dy, dx) in (-1..=1).flat_map(|dy| (-1..=1).map(move |dx| (dy, dx))) {
                    let (y, x) = (y + dy, x + dx);
                    let inside = y >= 0 && x >= 0 && y < height as isize && x < width as isize;
                    if !inside || (connectivity == Connectivity::Four && dy != 0 && dx != 0) {
                        continue;
                    }
                    let to = y as usize * width + x as usize;
                    if mask[to] > 0 && labels[to] == 0 {
                        labels[to] = next;
                        open.push(to);
                    }
                }
            }
        }
        labels
    }

    proptest! {
        #[test]
        fn agrees_with_flooding(
            width in 1_usize..12,
            pixels in prop::collection::vec(0_u8..2, 1..120),
            eight in any::<bool>(),
        ) {
            let connectivity = if eight { Connectivity::Eight } else { Connectivity::Four };
            let height = pixels.len() / width;
            let mask = &pixels[..height * width];
            let regions = Regions::of_mask(mask, height, width, connectivity);
            prop_assert_eq!(regions.labels, flooded(mask, height, width, connectivity));
            prop_assert_eq!(regions.sizes.iter().sum::<u64>(), mask.iter().map(|&m| u64::from(m)).sum::<u64>());
        }
    }
}
