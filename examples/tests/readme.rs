//! The project's README is true: its configuration can be read, its versions are the current ones, and its
//! figures are those of the pages that it names. `src/lib.rs` runs its code.

use derp_kv_conformance::LAWS;
use derp_kv_valkey::ValkeyConfig;
use toml::Table;

const README: &str = include_str!("../../README.md");

/// The README's blocks of one language.
fn blocks(language: &str) -> Vec<&'static str> {
    let begin = format!("```{language}\n");
    let behind = README.split(begin.as_str()).skip(1);
    behind.map(|rest| rest.split("```").next().expect("an end")).collect()
}

#[test]
fn a_newcomer_can_read_it_at_once() {
    assert!(README.lines().count() < 200, "{} lines", README.lines().count());
    let (_, pictures) = README.split_once("<picture>").expect("the page's picture");
    let (pictures, _) = pictures.split_once("</picture>").expect("its end");
    assert!(pictures.contains("docs/page-dark.png") && pictures.contains("docs/page-light.png"));
}

#[test]
fn the_quick_start_names_two_commands() {
    let commands =
        blocks("console")[0].lines().map(|line| line.split('#').next().expect("one").trim());
    let commands: Vec<_> = commands.collect();
    assert_eq!(commands, ["$ cargo run -p derp-kv-examples", "$ ./scripts/test.sh"]);
}

#[test]
fn the_dependencies_are_the_current_ones() {
    let [dependencies, _] = blocks("toml")[..] else { panic!("two blocks of TOML") };
    let table: Table = dependencies.parse().expect("TOML");
    let ours = table["dependencies"].as_table().expect("a table").iter();
    let ours: Vec<_> = ours.filter(|(name, _)| name.starts_with("derp-kv-")).collect();
    assert_eq!(ours.len(), 3);
    for (name, version) in ours {
        let version = version.as_str().expect("a version");
        assert!(env!("CARGO_PKG_VERSION").starts_with(version), "{name} {version}");
    }
}

#[test]
fn the_configuration_can_be_read() {
    let [_, configuration] = blocks("toml")[..] else { panic!("two blocks of TOML") };
    assert!(
        configuration.starts_with("[kv.valkey]")
            && README.contains("from_toml_path(\"derp.toml\")")
    );
    // The password of a test machine.
    let here = configuration.replace("$KV_PASSWORD", "$CARGO_PKG_NAME");
    let expected = ValkeyConfig::default()
        .addresses([("kv.example", 6379)])
        .username("app")
        .password(env!("CARGO_PKG_NAME"));
    assert_eq!(ValkeyConfig::from_toml_str(&here).expect("a configuration"), expected);
}

#[test]
fn it_counts_the_laws() {
    assert!(README.contains(&format!("One test suite of {} laws", LAWS.len())));
}

/// Whoever looks for a law that the README names finds it.
#[test]
fn the_laws_that_it_names_are_there() {
    let (_, guarantees) = README.split_once("## What is guaranteed").expect("the section");
    let (guarantees, _) = guarantees.split_once("\n## ").expect("its end");
    let names: Vec<_> = guarantees.split('`').skip(1).step_by(2).collect();
    // A law's id has small letters only; `OnAbandoned::Reject` is none.
    let small = names.iter().filter(|name| !name.contains(char::is_uppercase));
    let patterns = small.filter(|name| name.contains("::") || name.ends_with("_*"));
    let mut looked_for = 0;
    for pattern in patterns {
        looked_for += 1;
        let begin = pattern.trim_end_matches('*');
        let is_meant =
            |id: &str| id.starts_with(begin) || id.split("::").any(|part| part.starts_with(begin));
        assert!(LAWS.iter().any(|law| is_meant(law.id)), "{pattern}");
    }
    assert!(looked_for >= 8, "{names:?}");
}

/// The documentation tests compile it as it stands there; this counts what both layers need of it.
#[test]
fn both_layers_need_ten_lines() {
    let section = README.split("## HTTP in ten lines").nth(1).expect("the section");
    let code = section.split("```").nth(1).expect("its code");
    let (imports, function) = code.split_once("\n#[derive(Clone)]").expect("the user between them");
    let imported = imports.lines().filter(|line| line.starts_with("use derp_kv_core"));
    let (_, function) = function.split_once("\n\n").expect("the function");
    assert!(function.contains("RateLimitLayer") && function.contains("IdempotencyLayer"));
    assert!(imported.count() + function.lines().count() <= 10, "{function}");
}
