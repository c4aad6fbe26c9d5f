//! As much of Markdown as the pages use.

use std::fs;
use std::path::{Path, PathBuf};

/// The folder of the whole project.
pub(crate) fn project() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace").to_owned()
}

/// A file of Markdown.
#[derive(Debug)]
pub(crate) struct Page {
    pub(crate) path: PathBuf,
    pub(crate) text: String,
}

/// A block of code.
#[derive(Debug)]
pub(crate) struct Fence<'a> {
    /// The language, and what follows it.
    pub(crate) info: &'a str,
    pub(crate) code: String,
}

/// A table, whose rows have the texts of their cells.
#[derive(Debug)]
pub(crate) struct Table<'a> {
    /// The heading above it, and its first row.
    pub(crate) title: String,
    pub(crate) rows: Vec<Vec<&'a str>>,
}

impl Page {
    pub(crate) fn read(path: PathBuf) -> Self {
        let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path:?}: {error}"));
        Self { path, text }
    }

    /// The page of the guide that has this name.
    pub(crate) fn of_guide(name: &str) -> Self {
        Self::read(project().join("docs/guide/src").join(name))
    }

    pub(crate) fn name(&self) -> String {
        self.path.file_name().expect("a file").to_string_lossy().into_owned()
    }

    /// The lines that are not code.
    pub(crate) fn prose(&self) -> impl Iterator<Item = &str> {
        let mut is_code = false;
        self.text.lines().filter(move |line| {
            let is_fence = line.trim_start().starts_with("```");
            is_code ^= is_fence;
            !is_code && !is_fence
        })
    }

    /// The headings without their marks.
    pub(crate) fn headings(&self) -> impl Iterator<Item = &str> {
        let marked = self.prose().filter(|line| line.starts_with('#'));
        marked.map(|line| line.trim_start_matches('#').trim())
    }

    pub(crate) fn fences(&self) -> Vec<Fence<'_>> {
        let mut fences = Vec::new();
        let mut open: Option<Fence<'_>> = None;
        for line in self.text.lines() {
            match (line.trim_start().strip_prefix("```"), &mut open) {
                (Some(info), None) => open = Some(Fence { info, code: String::new() }),
                (Some(_), Some(_)) => fences.extend(open.take()),
                (None, Some(fence)) => {
                    fence.code.push_str(line);
                    fence.code.push('\n');
                }
                (None, None) => {}
            }
        }
        assert!(open.is_none(), "{}: a block of code does not end", self.name());
        fences
    }

    pub(crate) fn tables(&self) -> Vec<Table<'_>> {
        let (mut tables, mut heading) = (Vec::<Table<'_>>::new(), "");
        let mut is_in_table = false;
        for line in self.prose() {
            if line.starts_with('#') {
                heading = line;
            }
            let row = line.strip_prefix('|').and_then(|row| row.strip_suffix('|'));
            match (row, is_in_table) {
                (None, _) => is_in_table = false,
                (Some(_), false) => {
                    is_in_table = true;
                    tables.push(Table { title: format!("{heading} {line}"), rows: Vec::new() });
                }
                (Some(row), true) => {
                    let cells = cells(row);
                    let is_rule = cells.iter().all(|cell| cell.bytes().all(|byte| byte == b'-'));
                    if let (Some(table), false) = (tables.last_mut(), is_rule) {
                        table.rows.push(cells);
                    }
                }
            }
        }
        tables
    }

    /// The table whose heading or first row names `what`.
    pub(crate) fn table(&self, what: &str) -> Table<'_> {
        let mut found = self.tables().into_iter().filter(|table| table.title.contains(what));
        let table = found.next().unwrap_or_else(|| panic!("{}: no table of {what}", self.name()));
        assert!(found.next().is_none(), "{}: two tables of {what}", self.name());
        table
    }
}

/// The cells of a row; `\|` is a bar within one.
fn cells(row: &str) -> Vec<&str> {
    let ends = row.match_indices('|').map(|(at, _)| at);
    let ends: Vec<_> = ends.filter(|at| !row[..*at].ends_with('\\')).chain([row.len()]).collect();
    let starts = [0].into_iter().chain(ends.iter().map(|end| end + 1));
    starts.zip(&ends).map(|(start, end)| row[start..*end].trim()).collect()
}

/// What stands between backticks.
pub(crate) fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

/// All pages of the guide, without its table of contents.
pub(crate) fn guide() -> Vec<Page> {
    let pages = markdown_in("docs/guide/src").into_iter();
    pages.filter(|page| page.name() != "SUMMARY.md").collect()
}

/// The files of Markdown in a folder of the project.
pub(crate) fn markdown_in(folder: &str) -> Vec<Page> {
    let entries = fs::read_dir(project().join(folder)).expect("the folder");
    let mut paths: Vec<_> = entries.map(|entry| entry.expect("an entry").path()).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "md"));
    paths.sort();
    paths.into_iter().map(Page::read).collect()
}
