//! Pictures that can be read on a light and on a dark page.

use std::path::Path;

/// Which colours of the pictures become which ones on a dark page. They are told by their attributes, which
/// any rule outranks.
const DARK: &str = "<style>@media (prefers-color-scheme: dark) {
[fill=\"#FFFFFF\"] { fill: #0D1117 }
[fill=\"#E8E8E8\"] { fill: #30363D }
[fill=\"#000000\"] { fill: #E6EDF3 }
[fill=\"#C83C32\"], [fill=\"#FF0000\"] { fill: #FF8A80 }
[fill=\"#286EB4\"], [fill=\"#0000FF\"] { fill: #79B8FF }
[stroke=\"#000000\"] { stroke: #E6EDF3 }
[stroke=\"#C83C32\"], [stroke=\"#FF0000\"] { stroke: #FF8A80 }
[stroke=\"#286EB4\"], [stroke=\"#0000FF\"] { stroke: #79B8FF }
[stroke=\"#8250AA\"] { stroke: #C9A0F0 }
}</style>
";

/// Gives the SVG file at `path` its colours for a dark page; on a light one it looks as before.
///
/// # Errors
///
/// The file cannot be read or written.
pub fn add_dark(path: &Path) -> std::io::Result<()> {
    let picture = std::fs::read_to_string(path)?;
    std::fs::write(path, with_dark(&picture))
}

fn with_dark(picture: &str) -> String {
    match picture.split_once('\n') {
        Some((opening, rest)) if !rest.starts_with("<style>") => format!("{opening}\n{DARK}{rest}"),
        _ => picture.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_style_is_the_first_element_and_is_there_once() {
        let once = with_dark("<svg width=\"9\">\n<rect/>\n</svg>\n");
        assert_eq!(once, format!("<svg width=\"9\">\n{DARK}<rect/>\n</svg>\n"));
        assert_eq!(with_dark(&once), once);
    }

    #[test]
    fn each_picture_of_the_project_has_both() {
        let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs");
        let mut pictures = 0;
        for folder in [docs.clone(), docs.join("bench")] {
            for entry in std::fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.extension().is_some_and(|extension| extension == "svg") {
                    pictures += 1;
                    assert!(std::fs::read_to_string(&path).unwrap().contains(DARK), "{path:?}");
                }
            }
        }
        assert!(pictures >= 8, "{pictures} pictures");
    }
}
