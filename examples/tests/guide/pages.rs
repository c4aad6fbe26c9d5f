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
