//! Links lead to files that exist, and to headings that are there.

use std::collections::HashMap;
use std::path::Path;

use crate::markdown::{Page, guide, markdown_in, project};

/// The targets of a page's links and pictures.
fn targets(page: &Page) -> Vec<String> {
    let without_code = |line: &str| line.split('`').step_by(2).collect::<Vec<_>>().join("code");
    let text: Vec<_> = page.prose().map(without_code).collect();
    let text = text.join("\n");
    let behind = text.split("](").skip(1);
    behind.filter_map(|rest| Some(rest.split_once(')')?.0.to_owned())).collect()
}

/// The names by which a code host makes headings reachable.
fn fragments(page: &Page) -> Vec<String> {
    let mut seen = HashMap::<String, u32>::new();
    let slug = |heading: &str| {
        let kept = |char: &char| char.is_alphanumeric() || matches!(char, ' ' | '-' | '_');
        let slug: String = heading.to_lowercase().chars().filter(kept).collect();
        let slug = slug.replace(' ', "-");
        let count = seen.entry(slug.clone()).or_default();
        *count += 1;
        if *count == 1 { slug } else { format!("{slug}-{}", *count - 1) }
    };
    page.headings().map(slug).collect()
}

/// What is wrong with a link of `page`.
fn problem(page: &Page, target: &str) -> Option<&'static str> {
    let (file, fragment) = target.split_once('#').unwrap_or((target, ""));
    let folder = page.path.parent().expect("the page's folder");
    let path = if file.is_empty() { page.path.clone() } else { folder.join(file) };
    let Ok(path) = path.canonicalize() else { return Some("there is no such file") };
    if !path.starts_with(project().canonicalize().expect("the project")) {
        return Some("it leads out of the project");
    }
    let is_markdown = path.extension().is_some_and(|extension| extension == "md");
    match fragment {
        "" => None,
        _ if !is_markdown => Some("only pages have headings"),
        fragment => {
            let found = fragments(&Page::read(path)).iter().any(|known| known == fragment);
            (!found).then_some("there is no such heading")
        }
    }
}

#[test]
fn each_relative_link_leads_somewhere() {
    let mut pages = guide();
    pages.extend([Page::of_guide("SUMMARY.md"), Page::read(project().join("README.md"))]);
    pages.extend(markdown_in("docs"));
    let mut wrong = Vec::new();
    let mut checked = 0;
    for page in &pages {
        for target in targets(page) {
            if target.contains("://") {
                continue;
            }
            checked += 1;
            if let Some(problem) = problem(page, &target) {
                wrong.push(format!("{}: {target}: {problem}", page.path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert!(checked > 50, "{checked} links were found");
}

#[test]
fn what_leads_nowhere_is_found() {
    let path = project().join("docs/guide/src/page.md");
    let text = "# A page\n\n## What? It's *this*: `code`\n\n## Again\n\n## Again\n\n```text\n[no](link)\n```\n`[no](link)`\n";
    let page = Page { path, text: text.to_owned() };
    assert_eq!(targets(&page), [""; 0]);
    assert_eq!(fragments(&page), ["a-page", "what-its-this-code", "again", "again-1"]);
    for (target, expected) in [
        ("SUMMARY.md", None),
        ("nobody.md", Some("there is no such file")),
        ("SUMMARY.md#nothing", Some("there is no such heading")),
        ("SUMMARY.md#summary", None),
        ("../book.toml#book", Some("only pages have headings")),
        ("../../../..", Some("it leads out of the project")),
    ] {
        assert_eq!(problem(&page, target), expected, "{target}");
    }
    assert!(Path::new(&project()).join("README.md").exists());
}
