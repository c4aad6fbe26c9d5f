use crate::rows::Rows;

/// A series of the suite `growth`.
pub(crate) struct Series {
    pub(crate) bench: &'static str,
    /// What it varies: a field of its rows.
    pub(crate) field: &'static str,
    /// The file of its plot.
    pub(crate) file: &'static str,
}

pub(crate) const ALL: [Series; 5] = [
    Series { bench: "callers of one hot key", field: "callers", file: "callers.svg" },
    Series { bench: "keys", field: "keys", file: "keys.svg" },
    Series { bench: "mget", field: "batch", file: "mget.svg" },
    Series { bench: "mset", field: "batch", file: "mset.svg" },
    Series { bench: "primaries", field: "primaries", file: "primaries.svg" },
];

pub(crate) const CLIENTS: [&str; 2] = ["derp-kv", "redis-rs"];

/// What is varied, and the client's processor nanoseconds there.
pub(crate) type Points = Vec<(f64, f64)>;

impl Series {
    /// What the cost is of.
    pub(crate) fn unit(&self) -> &'static str {
        if self.field == "batch" { "key" } else { "operation" }
    }

    pub(crate) fn points(&self, rows: &Rows, client: &str) -> Points {
        let rows = rows.suite("growth").filter(|row| row.is(self.bench, client));
        rows.filter_map(|row| {
            let x = row.number(self.field)?;
            // What a batch costs is told for each of its keys.
            let parts = row.number("batch").unwrap_or(1.0);
            Some((x, row.number("cpu_ns_per_op")? / parts))
        })
        .collect()
    }
}
