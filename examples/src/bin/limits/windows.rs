//! How many of some moments fall into one window.

/// The most moments in any window of this length, which holds its beginning and not its end. The
/// moments are in their order.
pub(crate) fn most_within(moments: &[u64], window: u64) -> u64 {
    let mut first = 0;
    let mut most = 0;
    for (last, moment) in moments.iter().enumerate() {
        while moment - moments[first] >= window {
            first += 1;
        }
        most = most.max(last + 1 - first);
    }
    most as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_holds_its_beginning_and_not_its_end() {
        assert_eq!(most_within(&[], 10), 0);
        assert_eq!(most_within(&[0, 10], 10), 1);
        assert_eq!(most_within(&[0, 9, 10, 19], 10), 2);
        assert_eq!(most_within(&[5, 5, 14, 15, 30], 10), 3);
    }
}
