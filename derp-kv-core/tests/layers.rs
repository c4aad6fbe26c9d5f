//! The layout keeps what ARCHITECTURE.md says of it: imports point one way, no two files import each
//! other, and the default build stays small.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// From the lowest layer to the highest: a file imports from its own layer and those before it.
type Layers = &'static [&'static [&'static str]];

const CORE: Layers = &[
    &["error", "operation"],
    &["observe"],
    &["singleflight"],
    &["store"],
    &["coordinate"],
    &["cache", "once", "rate_limit"],
    &["ext"],
    &["http"],
];

const VALKEY: Layers = &[
    &["address"],
    &["config"],
    &["io"],
    &["protocol"],
    &["node"],
    &["observe"],
    &["cluster"],
    &["ops"],
    &["store"],
    // What only tests use.
    &["fuzzing", "test_server"],
];

fn layer_of(layers: Layers, module: &str) -> usize {
    let folder = module.split("::").next().unwrap_or(module);
    let layer = layers.iter().position(|names| names.contains(&folder));
    layer.unwrap_or_else(|| panic!("`{module}` is in no layer"))
}

fn workspace() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

fn files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// The module paths that a file names in its code, from `crate::` on.
fn imports(text: &str) -> BTreeSet<Vec<String>> {
    let is_code = |line: &&str| {
        let line = line.trim_start();
        !line.starts_with("//") && !line.starts_with("#[doc")
    };
    let code = text.lines().filter(is_code);
    let code: String = code.flat_map(|line| [line, "\n"]).collect();
    let paths = code.split("crate::").skip(1);
    paths
        .map(|path| {
            let name = |c: char| c.is_alphanumeric() || c == '_' || c == ':';
            let end = path.find(|c| !name(c)).unwrap_or(path.len());
            path[..end].split("::").filter(|part| !part.is_empty()).map(str::to_owned).collect()
        })
        .collect()
}

/// Each file's module path, and the files that it imports from.
fn graph(root: &Path) -> BTreeMap<String, BTreeSet<String>> {
    let mut paths = Vec::new();
    files(root, &mut paths);
    let module = |path: &Path| {
        let inside = path.strip_prefix(root).unwrap().with_extension("");
        let parts: Vec<_> = inside.iter().map(|part| part.to_str().unwrap().to_owned()).collect();
        parts.join("::")
    };
    let modules: BTreeSet<_> = paths.iter().map(|path| module(path)).collect();
    let mut graph = BTreeMap::new();
    for path in &paths {
        let name = module(path);
        if name == "lib" || name.ends_with("mod") {
            continue;
        }
        let imported = imports(&fs::read_to_string(path).unwrap()).into_iter().map(|import| {
            let mut files = (1..=import.len()).rev().map(|parts| import[..parts].join("::"));
            // `use crate::cache::{guarded_get, invalidate}` names files in braces.
            let folder = import.first().filter(|name| modules.contains(&format!("{name}::mod")));
            files
                .find(|file| modules.contains(file))
                .or_else(|| folder.cloned())
                .unwrap_or_else(|| panic!("{name} imports {import:?} through lib.rs"))
        });
        graph.insert(name.clone(), imported.filter(|file| *file != name).collect());
    }
    graph
}

#[test]
fn imports_point_one_way_and_never_through_the_front_page() {
    for (member, layers) in [("derp-kv-core", CORE), ("derp-kv-valkey", VALKEY)] {
        for (file, imported) in graph(&workspace().join(member).join("src")) {
            for other in imported {
                let (from, to) = (layer_of(layers, &file), layer_of(layers, &other));
                assert!(to <= from, "{file} imports {other}, which is above it");
                let (own, theirs) = (file.split("::").next(), other.split("::").next());
                let beside = to == from && own != theirs;
                let words = from == 0;
                assert!(!beside || words, "{file} imports {other}, which stands beside it");
            }
        }
    }
}

/// The files on a circle that begins at `file`, if there is one.
fn circle(
    graph: &BTreeMap<String, BTreeSet<String>>,
    file: &str,
    way: &mut Vec<String>,
) -> Option<Vec<String>> {
    if let Some(at) = way.iter().position(|before| before == file) {
        return Some(way[at..].to_vec());
    }
    way.push(file.to_owned());
    let found = graph.get(file).into_iter().flatten().find_map(|next| circle(graph, next, way));
    way.pop();
    found
}

#[test]
fn no_files_import_each_other_in_a_circle() {
    for member in ["derp-kv-core", "derp-kv-memory", "derp-kv-valkey"] {
        let graph = graph(&workspace().join(member).join("src"));
        for file in graph.keys() {
            let circle = circle(&graph, file, &mut Vec::new());
            assert_eq!(circle, None, "in {member}");
        }
    }
}

#[test]
fn the_default_build_depends_on_these_crates_alone() {
    let tree = Command::new(env!("CARGO"))
        .args(["tree", "--package", "derp-kv-core", "--edges", "normal", "--depth", "1"])
        .args(["--prefix", "none", "--format", "{lib}", "--locked", "--offline"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    assert!(tree.status.success(), "{}", String::from_utf8_lossy(&tree.stderr));
    let tree = String::from_utf8(tree.stdout).unwrap();
    let crates: BTreeSet<_> = tree.lines().skip(1).filter(|line| !line.is_empty()).collect();
    let expected = [
        "async_trait",
        "bytes",
        "dashmap",
        "futures_core",
        "futures_util",
        "getrandom",
        "serde",
        "serde_json",
        "sha2",
        "tokio",
    ];
    assert_eq!(crates, expected.into_iter().collect());
}
