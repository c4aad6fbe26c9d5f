//! Each page has what every page has, and is where it must be named.

use crate::markdown::{Page, guide, project};

#[test]
fn each_page_says_what_it_is_for_and_what_is_not_promised() {
    let pages = guide();
    assert!(pages.len() >= 15, "{} pages", pages.len());
    for page in pages {
        for section in ["What it is for", "What is not promised"] {
            let found = page.headings().filter(|heading| *heading == section).count();
            assert_eq!(found, 1, "{}: {section}", page.name());
        }
    }
}

#[test]
fn the_table_of_contents_lists_each_page_once() {
    let contents = Page::of_guide("SUMMARY.md");
    let pages: Vec<_> = guide().iter().map(Page::name).collect();
    for page in &pages {
        assert_eq!(contents.text.matches(&format!("]({page})")).count(), 1, "{page}");
    }
    assert_eq!(contents.text.matches("](").count(), pages.len(), "a page that is not there");
}

#[test]
fn the_code_of_each_page_runs() {
    let tested = Page::read(project().join("examples/src/guide.rs")).text;
    for page in guide() {
        assert!(tested.contains(&format!("\"{}\"", page.name())), "{}", page.name());
    }
}

/// rustdoc and docs.rs draw no diagrams: what they show of one is its source.
#[test]
fn no_diagram_is_in_the_documentation_of_code() {
    let members = ["derp-kv-core", "derp-kv-memory", "derp-kv-valkey", "derp-kv-conformance"];
    let mut folders = members.map(|member| project().join(member)).to_vec();
    let mut files = 0;
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            let is_source =
                path.extension().is_some_and(|extension| extension == "rs" || extension == "md");
            if path.is_dir() && !path.ends_with("target") {
                folders.push(path);
            } else if is_source {
                files += 1;
                assert!(
                    !Page::read(path.clone()).text.contains("```mermaid"),
                    "{}",
                    path.display()
                );
            }
        }
    }
    assert!(files > 200, "{files} files were read");
}

/// What has no language is taken for Rust, and what is `ignore`d does not run.
#[test]
fn each_block_of_code_says_what_it_is() {
    for page in guide() {
        for fence in page.fences() {
            let known = ["rust", "rust,no_run", "toml", "text", "console"];
            assert!(known.contains(&fence.info), "{}: {:?}", page.name(), fence.info);
        }
    }
}
