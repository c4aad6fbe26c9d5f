//! The whole suite on the backend on redb, and on it after its file was closed and reopened.

mod common;

use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

use async_trait::async_trait;
use derp_kv_conformance::{BoxError, Harness, Profile, fresh_prefix};
use derp_kv_core::{KvStore, Prefixed};
use derp_kv_examples::redb_store::RedbStore;
use redb::Durability;

/// A file that goes with its case.
struct File(PathBuf);

impl Drop for File {
    fn drop(&mut self) {
        // What is left is under the build's own temporary directory.
        let _ = std::fs::remove_file(&self.0);
    }
}

fn file() -> File {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    File(common::scratch(&format!("suite-{}.redb", NEXT.fetch_add(1, Ordering::Relaxed))))
}

// Without an fsync for each write: what is tested here is not what a power cut leaves.
const DURABILITY: Durability = Durability::None;

fn profile() -> Profile {
    // Each case is a file of its own.
    Profile::default().cases(24).rounds(30).embedded()
}

struct Fresh;

#[async_trait]
impl Harness for Fresh {
    type Store = RedbStore;
    type Guard = File;

    async fn open(&self) -> Result<(RedbStore, File), BoxError> {
        let file = file();
        Ok((RedbStore::open(&file.0, DURABILITY).await?, file))
    }

    fn profile(&self) -> Profile {
        profile()
    }
}

struct Reopened;

#[async_trait]
impl Harness for Reopened {
    type Store = Prefixed<RedbStore>;
    type Guard = File;

    async fn open(&self) -> Result<(Self::Store, File), BoxError> {
        let file = file();
        let before = RedbStore::open(&file.0, Durability::Immediate).await?;
        before.set(b"another case's key", b"", None).await?;
        drop(before);
        let store = RedbStore::open(&file.0, DURABILITY).await?;
        Ok((Prefixed::new(store, fresh_prefix()), file))
    }

    fn profile(&self) -> Profile {
        profile()
    }
}

mod fresh {
    use super::Fresh;

    derp_kv_conformance::conformance_tests!(Fresh);
}

mod reopened {
    use super::Reopened;

    derp_kv_conformance::conformance_tests!(Reopened);
}
