//! The tables of options name every option, and nothing else.

use std::collections::BTreeSet;

use derp_kv_core::Error;
use derp_kv_memory::MemoryConfig;
use derp_kv_valkey::ValkeyConfig;

use crate::markdown::{Page, project, quoted};

/// A type, the file that has its options, and the page that lists them.
const TYPES: [(&str, &str, &str); 10] = [
    ("GuardedGet", "derp-kv-core/src/cache/options.rs", "cache.md"),
    ("Idempotency", "derp-kv-core/src/once/options.rs", "idempotency.md"),
    ("IdempotencyLayer", "derp-kv-core/src/http/tower/idempotency.rs", "idempotency.md"),
    ("RateLimit", "derp-kv-core/src/rate_limit/limit.rs", "rate-limits.md"),
    ("RateLimiter", "derp-kv-core/src/rate_limit/limiter.rs", "rate-limits.md"),
    ("RateLimitLayer", "derp-kv-core/src/http/tower/rate_limit.rs", "rate-limits.md"),
    ("Dedup", "derp-kv-core/src/once/options.rs", "webhooks.md"),
    ("Lock", "derp-kv-core/src/coordinate/lock.rs", "locks.md"),
    ("MemoryConfig", "derp-kv-memory/src/config.rs", "configuration.md"),
    ("Profile", "derp-kv-conformance/src/profile.rs", "writing-a-backend.md"),
];

/// The public methods of `of` in `source` that take it and return it: its options.
fn builders(source: &str, of: &str) -> BTreeSet<String> {
    let blocks = source.split("\nimpl").skip(1).filter(|block| {
        let head = block.split('{').next().unwrap_or_default();
        let name = head.split(" where").next().unwrap_or_default().replace('\n', " ");
        let is_of = |word: &str| word == of || word.starts_with(&format!("{of}<"));
        !name.contains(" for ") && name.split_ascii_whitespace().any(is_of)
    });
    let bodies = blocks.map(|block| block.split("\n}").next().unwrap_or_default());
    let methods = bodies.flat_map(|body| body.split("\n    pub ").skip(1));
    let option = |method: &str| {
        let (_, method) = method.split('{').next()?.split_once("fn ")?;
        let (name, arguments) = method.split_once('(')?;
        let receiver = arguments.trim_start().trim_start_matches("mut ");
        let takes_it = receiver.starts_with("self,") || receiver.starts_with("self)");
        let name = name.split('<').next()?;
        (takes_it && arguments.contains("-> Self")).then(|| name.to_owned())
    };
    methods.filter_map(option).collect()
}

fn source(path: &str) -> String {
    Page::read(project().join(path)).text
}

/// The options that the first cells of a page's table of `of` name.
fn told(page: &str, of: &str) -> BTreeSet<String> {
    let page = Page::of_guide(page);
    let table = page.table(&format!("`{of}`"));
    let column = usize::from(table.title.contains("| setter |"));
    let names = table.rows.iter().flat_map(|row| quoted(row[column]));
    names.filter(|name| !name.contains("::")).map(str::to_owned).collect()
}

#[test]
fn each_table_names_every_option() {
    for (of, file, page) in TYPES {
        let options = builders(&source(file), of);
        assert!(!options.is_empty(), "{file} has no options of {of}");
        assert_eq!(told(page, of), options, "{page}: the options of {of}");
    }
    let options = builders(&source("derp-kv-valkey/src/config/setters.rs"), "ValkeyConfig");
    assert_eq!(told("configuration.md", "ValkeyConfig"), options);
}

/// The one option that a cache has beside those of `GuardedGet`.
#[test]
fn the_option_of_a_cache_is_named() {
    let options = builders(&source("derp-kv-core/src/cache/handle.rs"), "Cache");
    assert_eq!(options, BTreeSet::from(["absent_ttl".to_owned()]));
    let page = Page::of_guide("cache.md");
    assert!(page.prose().any(|line| line.contains("`Cache` has one more: `absent_ttl`")));
}

/// A configuration that refuses a field tells those that it knows.
#[test]
fn each_table_names_every_field() {
    let known = |error: Error| {
        let text = error.to_string();
        let (_, known) = text.split_once("known: ").expect("the fields");
        known.split(", ").map(str::to_owned).collect::<BTreeSet<_>>()
    };
    let valkey = ValkeyConfig::from_toml_str("[kv.valkey]\nnobody = 1").unwrap_err();
    let memory = MemoryConfig::from_toml_str("[kv.memory]\nnobody = 1").unwrap_err();
    let page = Page::of_guide("configuration.md");
    for (of, fields) in [("ValkeyConfig", known(valkey)), ("MemoryConfig", known(memory))] {
        let table = page.table(&format!("`{of}`"));
        let named = table.rows.iter().flat_map(|row| quoted(row[0]));
        assert_eq!(named.map(str::to_owned).collect::<BTreeSet<_>>(), fields, "{of}");
    }
}

/// Each kind of error has a row that says what to do with it.
#[test]
fn each_kind_of_error_has_a_row() {
    let text = source("derp-kv-core/src/error.rs");
    let (_, behind) = text.split_once("pub enum ErrorKind {").expect("the kinds");
    let lines = behind.split("\n}").next().unwrap_or_default().lines().map(str::trim);
    let kinds = lines.filter_map(|line| line.strip_suffix(','));
    let kinds: BTreeSet<_> = kinds.filter(|kind| !kind.contains(' ')).collect();
    assert!(kinds.len() >= 16, "{kinds:?}");
    let page = Page::of_guide("errors.md");
    let table = page.table("| it means |");
    let named = table.rows.iter().flat_map(|row| quoted(row[0]));
    assert_eq!(named.collect::<BTreeSet<_>>(), kinds);
}

#[test]
fn options_are_told_from_other_methods() {
    let text = "\nimpl Other {\n    pub fn other(self) -> Self {\n    }\n}\n\
        \nimpl<S> Options<S>\nwhere\n    S: Copy,\n{\n    pub const fn new() -> Self {\n    }\n\
        \n    pub fn one(mut self) -> Self {\n    }\n\n    fn own(self) -> Self {\n    }\n\
        \n    pub fn two<F>(\n        mut self,\n        f: F,\n    ) -> Self {\n    }\n\
        \n    pub fn looks(&self) -> &Self {\n    }\n\n    pub fn build(self) -> Result<Store> {\n    }\n}\n\
        \nimpl Default for Options<()> {\n    pub fn three(self) -> Self {\n    }\n}\n";
    assert_eq!(builders(text, "Options"), BTreeSet::from(["one".to_owned(), "two".to_owned()]));
}
