//! The project's README shows the list of laws as it is.

use std::path::Path;

use derp_kv_conformance::law_table;

const BEGIN: &str = "<!-- laws:begin -->\n";
const END: &str = "<!-- laws:end -->";

#[test]
fn the_table_of_laws_is_up_to_date() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../README.md");
    let readme = std::fs::read_to_string(&path).expect("the project has a README.md");
    let (before, rest) = readme.split_once(BEGIN).expect("the README marks where the table begins");
    let (shown, after) = rest.split_once(END).expect("the README marks where the table ends");
    let current = law_table();
    if std::env::var_os("UPDATE_README").is_some() {
        let updated = [before, BEGIN, &current, END, after].concat();
        std::fs::write(&path, updated).expect("README.md can be written");
    } else {
        assert!(
            shown == current,
            "the table in README.md is not that of the list; run \
             `UPDATE_README=1 cargo test -p derp-kv-conformance --test readme`"
        );
    }
}
