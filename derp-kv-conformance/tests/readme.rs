//! The project's README shows the list of laws as it is.

#[test]
fn the_table_of_laws_is_up_to_date() {
    let readme = include_str!("../../README.md");
    let table = readme
        .split_once("<!-- laws:begin -->\n")
        .and_then(|(_, rest)| rest.split_once("<!-- laws:end -->"))
        .map(|(table, _)| table);
    let current = derp_kv_conformance::law_table();
    assert!(table == Some(current.as_str()), "put this between the marks:\n\n{current}");
}
