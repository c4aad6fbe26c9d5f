use std::fmt::Debug;
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

use proptest::test_runner::{FailurePersistence, PersistedSeed};

use crate::input::shown;

const HEADER: &str = "# Seeds of failures that the conformance suite found; it tries them first.
# Keep this file in version control, and remove a line when its law is renamed.
";

/// The seeds of one law, in the file of its area beside the author's test file.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Seeds {
    file: PathBuf,
    law: &'static str,
}

impl Seeds {
    /// `source` is what `file!()` says in the author's test: relative to a directory above or at
    /// `manifest_dir`.
    pub(crate) fn beside(
        manifest_dir: &str,
        source: &str,
        area: &str,
        law: &'static str,
    ) -> Option<Self> {
        let source = Path::new(manifest_dir)
            .ancestors()
            .map(|above| above.join(source))
            .find(|source| source.is_file())?;
        let folder = format!("{}-seeds", source.file_stem()?.to_str()?);
        Some(Self { file: source.with_file_name(folder).join(format!("{area}.txt")), law })
    }

    fn append(&self, seed: &PersistedSeed, input: &dyn Debug) -> std::io::Result<()> {
        if let Some(folder) = self.file.parent() {
            fs::create_dir_all(folder)?;
        }
        let mut file = OpenOptions::new().append(true).create(true).open(&self.file)?;
        // Written at once: tests of other laws may append to the same file.
        let header = if file.metadata()?.len() == 0 { HEADER } else { "" };
        let input = shown(&input).replace(['\n', '\r'], " ");
        file.write_all(format!("{header}{} {seed} # {input}\n", self.law).as_bytes())
    }
}

impl FailurePersistence for Seeds {
    fn load_persisted_failures2(&self, _: Option<&'static str>) -> Vec<PersistedSeed> {
        let Ok(text) = fs::read_to_string(&self.file) else { return Vec::new() };
        let of_this_law = |line: &str| {
            let (law, rest) = line.split_once(' ')?;
            let seed = rest.split('#').next()?.trim();
            (law == self.law).then(|| seed.parse().ok()).flatten()
        };
        text.lines().filter_map(of_this_law).collect()
    }

    fn save_persisted_failure2(
        &mut self,
        _: Option<&'static str>,
        seed: PersistedSeed,
        shrunken_value: &dyn Debug,
    ) {
        // A read-only checkout must not hide the violation itself.
        if let Err(error) = self.append(&seed, shrunken_value) {
            eprintln!("could not keep the seed {seed} in {}: {error}", self.file.display());
        }
    }

    fn box_clone(&self) -> Box<dyn FailurePersistence> {
        Box::new(self.clone())
    }

    fn eq(&self, other: &dyn FailurePersistence) -> bool {
        other.as_any().downcast_ref::<Self>() == Some(self)
    }

    fn as_any(&self) -> &dyn std::any::Any {
        self
    }
}
