//! Prints the public items that a file of rustdoc's JSON describes, one a line and sorted. `scripts/api.sh` calls it.

use std::error::Error;
use std::io::{self, Write};

use public_api::Builder;

fn main() -> Result<(), Box<dyn Error>> {
    let file = std::env::args_os().nth(1).ok_or("the file with rustdoc's JSON is missing")?;
    // Left out: what the standard library implements for every type, and the automatic traits.
    let api = Builder::from_rustdoc_json(file)
        .omit_blanket_impls(true)
        .omit_auto_trait_impls(true)
        .build()?;
    let mut out = io::stdout().lock();
    for item in api.items() {
        writeln!(out, "{item}")?;
    }
    Ok(())
}
