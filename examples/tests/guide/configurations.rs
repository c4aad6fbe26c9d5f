//! The configurations that the guide shows can be read.

use derp_kv_examples::config::Config;
use derp_kv_memory::MemoryConfig;
use derp_kv_valkey::ValkeyConfig;
use derp_kv_valkey::test_server::Certificates;
use toml::Table;

use crate::markdown::{Page, guide};

/// The TOML of a page's blocks, with the name of the page.
fn blocks() -> Vec<(String, String)> {
    let pages = guide();
    let all = pages.iter().flat_map(|page| {
        let fences = page.fences().into_iter().filter(|fence| fence.info == "toml");
        fences.map(|fence| (page.name(), fence.code)).collect::<Vec<_>>()
    });
    all.collect()
}

/// What the environment and the files of a production machine stand for here.
fn at_home(code: &str, certificates: &Certificates) -> String {
    let (certificate, key) = certificates.client();
    let variables = ["$KV_PASSWORD", "$VALKEY_PASSWORD"];
    let code = variables
        .iter()
        .fold(code.to_owned(), |code, variable| code.replace(variable, "$CARGO_PKG_NAME"));
    [
        ("/etc/derp/ca.pem", certificates.ca()),
        ("/etc/derp/client.pem", certificate),
        ("/etc/derp/client.key", key),
    ]
    .iter()
    .fold(code, |code, (path, file)| code.replace(path, &file.to_string_lossy()))
}

#[test]
fn each_configuration_can_be_read() {
    let certificates = Certificates::generate().unwrap();
    let (mut valkey, mut memory) = (0, 0);
    for (page, code) in blocks() {
        let table: Table = code.parse().unwrap_or_else(|error| panic!("{page}: {error}\n{code}"));
        let Some(kv) = table.get("kv").and_then(toml::Value::as_table) else {
            let keys: Vec<_> = table.keys().map(String::as_str).collect();
            let is_of_cargo = keys.iter().all(|key| key.ends_with("dependencies"));
            assert!(is_of_cargo, "{page}: whose tables are these? {keys:?}");
            continue;
        };
        let code = at_home(&code, &certificates);
        if kv.contains_key("valkey") {
            let read = ValkeyConfig::from_toml_str(&code);
            assert!(read.is_ok(), "{page}: {read:?}");
            valkey += 1;
        }
        if kv.contains_key("memory") {
            let read = MemoryConfig::from_toml_str(&code);
            assert!(read.is_ok(), "{page}: {read:?}");
            memory += 1;
        }
        let read = Config::from_toml_str(&code);
        assert!(read.is_ok(), "{page}: {read:?}");
    }
    assert!(valkey >= 6 && memory >= 1, "{valkey} and {memory}");
}

/// The crates of the guide have the version of this project.
#[test]
fn each_version_of_ours_is_the_current_one() {
    let mut found = 0;
    for (page, code) in blocks() {
        for line in code.lines().filter(|line| line.starts_with("derp-kv-")) {
            let version = line.split('"').nth(1).expect("a version");
            assert!(env!("CARGO_PKG_VERSION").starts_with(version), "{page}: {line}");
            found += 1;
        }
    }
    assert!(found >= 4, "{found} versions were found");
}

#[test]
fn the_file_of_the_defaults_says_the_defaults() {
    let page = Page::of_guide("configuration.md");
    let (_, behind) = page.text.split_once("says the same as the defaults").expect("the sentence");
    let code = behind.split("```toml").nth(1).and_then(|rest| rest.split("```").next());
    let code = code.expect("the file");
    assert_eq!(ValkeyConfig::from_toml_str(code).unwrap(), ValkeyConfig::default());
    // The table says the same, field by field.
    let defaults: Table = code.parse().unwrap();
    let table = page.table("`ValkeyConfig`");
    for (field, value) in defaults["kv"]["valkey"].as_table().expect("the table") {
        let row = table.rows.iter().find(|row| row[0] == format!("`{field}`"));
        let told = row.unwrap_or_else(|| panic!("{field}"))[2].trim_matches('`');
        let told: Table = format!("told = {told}").parse().unwrap();
        assert_eq!(&told["told"], value, "{field}");
    }
}
