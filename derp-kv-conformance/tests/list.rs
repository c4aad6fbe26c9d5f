//! The list of laws agrees with the documentation of the core.

use std::collections::BTreeSet;
use std::path::Path;

use derp_kv_conformance::LAWS;

/// The core's sources.
fn core() -> Vec<String> {
    let mut folders = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("../derp-kv-core/src")];
    let mut sources = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).expect("the core is beside this crate") {
            let path = entry.expect("a folder can be read").path();
            if path.is_dir() {
                folders.push(path);
            } else {
                sources.push(std::fs::read_to_string(&path).expect("a source is text"));
            }
        }
    }
    sources
}

/// What stands between backticks and looks like a law of one of the areas.
fn ids_in(text: &str) -> BTreeSet<&str> {
    let areas: BTreeSet<_> = LAWS.iter().map(|law| law.area).collect();
    text.split('`')
        .filter(|word| word.split_once("::").is_some_and(|(area, _)| areas.contains(area)))
        .collect()
}

#[test]
fn every_law_is_documented_and_every_documented_law_is_tested() {
    let listed: BTreeSet<_> = LAWS.iter().map(|law| law.id).collect();
    assert_eq!(listed.len(), LAWS.len(), "an id is listed twice");
    let documents = core();
    let documented: BTreeSet<_> = documents.iter().flat_map(|text| ids_in(text)).collect();
    let missing: Vec<_> = listed.difference(&documented).collect();
    assert!(missing.is_empty(), "laws that the trait's documentation does not name: {missing:?}");
    let untested: Vec<_> = documented.difference(&listed).collect();
    assert!(untested.is_empty(), "documented laws that no test is named for: {untested:?}");
}

/// The functions and traits of a source, each with its rustdoc.
fn documented(source: &str) -> Vec<(&str, String)> {
    let lines: Vec<_> = source.lines().map(str::trim_start).collect();
    let items = lines.iter().enumerate().filter_map(|(at, line)| {
        let item = ["fn ", "pub async fn ", "pub trait "]
            .iter()
            .find_map(|item| line.strip_prefix(item))?;
        let name = item.split(['<', '(', ':']).next()?;
        let docs = lines[..at].iter().rev().take_while(|line| line.starts_with("///"));
        Some((name, docs.copied().collect()))
    });
    items.collect()
}

/// Laws that all helpers keep.
const OF_ALL: [&str; 3] = ["lock_keys_are_reserved", "ids_are_bounded", "records_are_compatible"];

/// Where the documentation names the law of this name.
fn home(law: &str) -> &str {
    // `rate_limit_reset_forgets` is a law of `rate_limit_reset`, not of `rate_limit`.
    const HELPERS: [&str; 9] = [
        "rate_limit_reset",
        "rate_limit_refund",
        "rate_limit",
        "guarded_get",
        "invalidate",
        "refresh",
        "idempotent_execute",
        "already_processed",
        "process_once",
    ];
    let own = HELPERS.into_iter().find(|helper| law.starts_with(helper));
    match own {
        Some(helper) => helper,
        None if OF_ALL.contains(&law) => "KvStoreExt",
        None if law.starts_with("leases_") => "try_lock",
        None => panic!("no helper is known to promise `{law}`"),
    }
}

#[test]
fn each_law_of_a_helper_is_named_where_the_helper_is_documented() {
    let sources = core();
    let documented: Vec<_> = sources.iter().flat_map(|source| documented(source)).collect();
    for law in LAWS.iter().filter(|law| ["helpers", "faults"].contains(&law.area)) {
        let (_, name) = law.id.split_once("::").expect("an id has an area");
        let home = home(name);
        // A helper is a function, and a method that refers to it.
        let mut homes = documented.iter().filter(|(item, _)| *item == home);
        let named = homes.any(|(_, docs)| ids_in(docs).contains(law.id));
        assert!(named, "`{home}` does not name its law `{}`", law.id);
    }
}
