//! Rows in groups of few sizes, so that SQLite prepares each statement for many rows once.

/// Rows of one statement; the largest with 16 values each are far below the 32,766 that SQLite takes.
const SIZES: [usize; 4] = [64, 16, 4, 1];

/// All of `rows` in their order, as many in a group as may be.
pub(super) fn chunks<T>(mut rows: &[T]) -> impl Iterator<Item = &[T]> {
    std::iter::from_fn(move || {
        let size = SIZES.into_iter().find(|size| *size <= rows.len())?;
        let (chunk, rest) = rows.split_at(size);
        rows = rest;
        Some(chunk)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_come_in_order_and_in_groups_of_four_sizes() {
        for count in [0, 1, 3, 4, 63, 64, 65, 150] {
            let rows: Vec<usize> = (0..count).collect();
            let groups: Vec<&[usize]> = chunks(&rows).collect();
            assert_eq!(groups.concat(), rows);
            assert!(groups.iter().all(|it| SIZES.contains(&it.len())), "{groups:?}");
        }
        let sizes: Vec<usize> = chunks(&[0; 150]).map(<[i32]>::len).collect();
        assert_eq!(sizes, [64, 64, 16, 4, 1, 1]);
    }
}
