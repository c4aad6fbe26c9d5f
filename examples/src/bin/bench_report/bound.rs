/// What a figure must keep to.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Bound {
    AtLeast(f64),
    AtMost(f64),
}

impl Bound {
    pub(crate) fn holds(self, measured: f64) -> bool {
        match self {
            Self::AtLeast(bound) => measured >= bound,
            Self::AtMost(bound) => measured <= bound,
        }
    }

    /// The bound and its unit, for people.
    pub(crate) fn shown(self, unit: &str) -> String {
        match self {
            Self::AtLeast(bound) => format!("≥ {bound}{unit}"),
            Self::AtMost(bound) => format!("≤ {bound}{unit}"),
        }
    }
}

/// Whether all bounds hold; `None` stands for one that was not measured.
pub(crate) fn verdict(kept: impl IntoIterator<Item = Option<bool>>) -> &'static str {
    let kept: Vec<_> = kept.into_iter().collect();
    if kept.contains(&Some(false)) {
        "**missed**"
    } else if kept.contains(&None) {
        "not measured"
    } else {
        "kept"
    }
}
