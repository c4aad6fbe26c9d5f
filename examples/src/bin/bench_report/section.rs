//! Sections of the page that are measured, and written, by themselves.

/// `page` with the section in the place of the one with its `title`, or else before the first section
/// that begins with `before`, or at the end.
pub(crate) fn replace(page: &str, title: &str, section: &str, before: &str) -> String {
    let at = |title: &str| page.find(&format!("\n{title}")).map(|at| at + 1);
    let begin = at(title).or_else(|| at(before)).unwrap_or(page.len());
    let (head, rest) = page.split_at(begin);
    let end = if rest.starts_with(title) {
        rest.find("\n## ").map_or(rest.len(), |at| at + 1)
    } else {
        0
    };
    format!("{head}{section}{}", &rest[end..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_section_takes_its_place_in_the_page() {
        let old = "# Page\n\nText.\n\n## Budgets\n\nMore.\n";
        let put = |page: &str, section: &str| replace(page, "## Reach", section, "## Budgets");
        let with = put(old, "## Reach\n\none\n\n");
        assert_eq!(with, "# Page\n\nText.\n\n## Reach\n\none\n\n## Budgets\n\nMore.\n");
        let other = put(&with, "## Reach\n\ntwo\n\n### Part\n\n");
        let again = put(&other, "## Reach\n\none\n\n");
        assert_eq!(again, with);
    }
}
