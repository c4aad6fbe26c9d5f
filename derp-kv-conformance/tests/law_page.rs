//! `LAWS.md` shows the list of laws as it is.

use std::path::Path;

use derp_kv_conformance::law_tables;

const BEGIN: &str = "<!-- laws:begin -->\n";
const END: &str = "<!-- laws:end -->";

#[test]
fn the_tables_of_laws_are_up_to_date() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("LAWS.md");
    let page = std::fs::read_to_string(&path).expect("the crate has a LAWS.md");
    let (before, rest) = page.split_once(BEGIN).expect("the page marks where the tables begin");
    let (shown, after) = rest.split_once(END).expect("the page marks where the tables end");
    let current = law_tables();
    if std::env::var_os("UPDATE_LAWS").is_some() {
        let updated = [before, BEGIN, &current, END, after].concat();
        std::fs::write(&path, updated).expect("LAWS.md can be written");
    } else {
        assert!(
            shown == current,
            "the tables in LAWS.md are not those of the list; run \
             `UPDATE_LAWS=1 cargo test -p derp-kv-conformance --test law_page`"
        );
    }
}
