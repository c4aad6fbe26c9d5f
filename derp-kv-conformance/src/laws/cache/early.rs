use std::time::Duration;

use bytes::Bytes;
use derp_kv_core::{Freshness, GuardedGet, KvStore, KvStoreExt, Source};

use super::{HOUR, NEW, OLD, STALE, is_unchanged, soon};
use crate::bench::{Bench, LawResult};
use crate::erased::Store;
use crate::input::Blob;
use crate::laws::expect;
use crate::laws::helpers::{Failed, Gate, Runs};
use crate::model::{Deadline, Span};
use crate::scene::Scene;
use crate::violation::{Violation, ensure, ensure_eq};

/// Values whose TTL is refreshed in its last half, with stale time after it or without.
#[derive(Clone, Copy, Debug)]
struct Early {
    stale: Duration,
}

impl Early {
    fn options(self) -> GuardedGet {
        let options = GuardedGet::new(HOUR).early(0.5).lock_ttl(HOUR).backoff(HOUR);
        if self.stale.is_zero() { options } else { options.stale(self.stale) }
    }

    fn key(self, what: &str) -> String {
        format!("{what}, {:?}", self.stale)
    }

    /// Writes the old value, with so much left of its TTL.
    async fn store(
        self,
        kv: &impl KvStore,
        key: &str,
        left: Duration,
    ) -> Result<Deadline, Violation> {
        let ttl = left + self.stale;
        let (set, span) = Span::of(kv.set(key.as_bytes(), &OLD, Some(ttl))).await;
        set?;
        Ok(Deadline::new(ttl, span))
    }

    /// All callers get the old value, which is fresh, and compute nothing.
    async fn all_get_the_old_value(self, handles: &[Store], key: &str) -> Result<(), Violation> {
        let (runs, options) = (Runs::default(), self.options());
        for kv in handles.iter().chain(handles) {
            let work = async || {
                runs.begin();
                Ok::<_, Failed>(NEW)
            };
            let got = kv.guarded_get_detailed(key, &options, work);
            let got = soon("a caller of a fresh value", got).await??;
            ensure_eq!(got.value, OLD, "what a caller of a fresh value gets");
            let told = (got.freshness, got.source);
            ensure_eq!(told, (Freshness::Fresh, Source::Store), "what it is told");
        }
        ensure_eq!(runs.count(), 0, "the number of computations beside the one refresh");
        Ok(())
    }

    async fn check(self, scene: &Scene<'_>, handles: &[Store]) -> Result<(), Violation> {
        let kv = &scene.store;
        let key = self.key("before its last half");
        let written = self.store(kv, &key, HOUR / 4 * 3).await?;
        self.all_get_the_old_value(handles, &key).await?;
        is_unchanged(kv, &key, &OLD, &written, scene.slack()).await?;

        let key = self.key("in its last half");
        let written = self.store(kv, &key, HOUR / 4).await?;
        let gate = Gate::default();
        let refreshes = tokio::spawn({
            let (kv, key, gate) = (handles[0].clone(), key.clone(), gate.clone());
            async move {
                let work = || async {
                    gate.pass().await;
                    Ok::<_, Failed>(NEW)
                };
                kv.guarded_get(&key, &self.options(), work).await
            }
        });
        soon("an early refresh, which has not begun: a caller", gate.begun.notified()).await?;
        self.all_get_the_old_value(handles, &key).await?;
        is_unchanged(kv, &key, &OLD, &written, scene.slack()).await?;
        gate.open.notify_one();
        let value = soon("the one who refreshes", refreshes).await???;
        ensure_eq!(value, NEW, "what the one who refreshes gets");
        expect(kv, key.as_bytes(), &Blob(NEW.into()), Some(HOUR + self.stale)).await?;

        let key = self.key("fails");
        let written = self.store(kv, &key, HOUR / 4).await?;
        let work = async || Err::<Bytes, _>(Failed::Work);
        let got = handles[0].guarded_get_detailed(&key, &self.options(), work).await;
        let fresh =
            matches!(&got, Ok(got) if got.value == OLD && got.freshness == Freshness::Fresh);
        ensure!(fresh, "an early refresh fails, and its caller gets {got:?}");
        self.all_get_the_old_value(handles, &key).await?;
        is_unchanged(kv, &key, &OLD, &written, scene.slack()).await
    }
}

pub(crate) fn refreshes_early(bench: &Bench<'_>) -> LawResult {
    bench.scenario(async |scene| {
        let handles = scene.handles(3).await?;
        for stale in [Duration::ZERO, STALE] {
            Early { stale }.check(scene, &handles).await?;
        }
        Ok(())
    })
}
