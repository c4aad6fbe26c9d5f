use std::cell::{Cell, RefCell};
use std::fmt::Debug;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, Instant};

use derp_kv_core::KvStore;
use futures_util::FutureExt;
use proptest::strategy::Strategy;
use proptest::test_runner::{
    Config, RngSeed, TestCaseError, TestCaseResult, TestError, TestRunner,
};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::Barrier;
use tokio::task::JoinSet;

use crate::erased::AnyHarness;
use crate::input::{shortened, shown};
use crate::progress::Progress;
use crate::resolution;
use crate::scene::Scene;
use crate::seeds::Seeds;
use crate::violation::{Kind, Violation};
use crate::{Profile, Time};

/// Longer than any case lets pass: some outlast [`MAX_TTL`](derp_kv_core::MAX_TTL) of 100 years.
const VIRTUAL_CASE_TIMEOUT: Duration = Duration::from_secs(1_000 * 365 * 24 * 60 * 60);

/// How long a shorter input is looked for that fails as well.
const SHRINKING: Duration = Duration::from_secs(3);

/// How many rounds a sweep has at most, and for how long it begins another.
const SWEEPS: u32 = 8;
const SWEEPING: Duration = Duration::from_millis(100);

/// How a law failed, and after which history.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) violation: Violation,
    pub(crate) history: Option<String>,
}

impl From<Violation> for Failure {
    fn from(violation: Violation) -> Self {
        Self { violation, history: None }
    }
}

pub(crate) type LawResult = Result<(), Failure>;

/// What a law is given to test a store with.
pub(crate) struct Bench<'a> {
    pub(crate) harness: &'a dyn AnyHarness,
    pub(crate) profile: &'a Profile,
    pub(crate) seeds: Option<Seeds>,
    pub(crate) progress: Arc<Progress>,
}

impl Bench<'_> {
    /// Whether the store's clock can be moved.
    pub(crate) fn is_virtual(&self) -> bool {
        self.harness.time() == Time::Virtual
    }

    /// Random cases, each on a fresh store; a failing one is shrunk.
    pub(crate) fn property<S, F>(&self, strategy: S, case: F) -> LawResult
    where
        S: Strategy<Value: Debug>,
        F: AsyncFn(&mut Scene<'_>, S::Value) -> Result<(), Violation>,
    {
        self.cases(self.runtime()?, self.timeout(), self.profile.cases, &strategy, case)
    }

    /// Random cases in real time on several threads.
    pub(crate) fn contended_property<S, F>(&self, strategy: S, case: F) -> LawResult
    where
        S: Strategy<Value: Debug>,
        F: AsyncFn(&mut Scene<'_>, S::Value) -> Result<(), Violation>,
    {
        let timeout = self.real_timeout();
        self.cases(self.threads()?, timeout, self.profile.cases, &strategy, case)
    }

    /// Random cases that let time pass. Where that means to wait, they are few: let each try
    /// much at once.
    pub(crate) fn timed_property<S, F>(&self, strategy: S, case: F) -> LawResult
    where
        S: Strategy<Value: Debug>,
        F: AsyncFn(&mut Scene<'_>, S::Value) -> Result<(), Violation>,
    {
        let cases = if self.is_virtual() { self.profile.cases } else { 3 };
        self.cases(self.runtime()?, self.timeout(), cases, &strategy, case)
    }

    /// Random cases each of which ends with a short pause. Where that means to wait, they are fewer.
    pub(crate) fn pausing_property<S, F>(&self, strategy: S, case: F) -> LawResult
    where
        S: Strategy<Value: Debug>,
        F: AsyncFn(&mut Scene<'_>, S::Value) -> Result<(), Violation>,
    {
        let cases = self.profile.cases;
        let cases = if self.is_virtual() { cases } else { cases.div_ceil(8) };
        self.cases(self.runtime()?, self.timeout(), cases, &strategy, case)
    }

    fn cases<S, F>(
        &self,
        runtime: Runtime,
        timeout: Duration,
        cases: u32,
        strategy: &S,
        case: F,
    ) -> LawResult
    where
        S: Strategy<Value: Debug>,
        F: AsyncFn(&mut Scene<'_>, S::Value) -> Result<(), Violation>,
    {
        // A harness that cannot open must not be asked a thousand times over.
        drop(runtime.block_on(self.open(self.slack()))?);
        let config = Config {
            cases,
            failure_persistence: self.seeds.clone().map(|seeds| Box::new(seeds) as _),
            rng_seed: RngSeed::Fixed(self.profile.seed),
            ..Config::default()
        };
        let failures = Failures::default();
        let result = TestRunner::new(config).run(strategy, |input| {
            if failures.are_enough() {
                return Ok(());
            }
            self.progress.begin(shown(&input));
            let outcome = runtime.block_on(async {
                // Caught here rather than by proptest, which would not say that it was a panic.
                let case = AssertUnwindSafe(async {
                    let mut scene = self.open(self.slack()).await?;
                    self.in_time(timeout, case(&mut scene, input)).await
                });
                case.catch_unwind().await.unwrap_or_else(|panic| Err(Violation::panicked(&*panic)))
            });
            self.progress.count();
            outcome.or_else(|violation| failures.add(violation))
        });
        runtime.shutdown_background();
        result.map_err(|error| match error {
            TestError::Abort(reason) => {
                Violation::of(Kind::NotTried, format!("no case could be made: {reason}")).into()
            }
            TestError::Fail(reason, input) => Failure {
                violation: failures.named(&reason.to_string()),
                history: Some(shortened(format!("{input:?}"), 4_000)),
            },
        })
    }

    async fn open(&self, slack: Duration) -> Result<Scene<'_>, Violation> {
        let timeout = self.timeout();
        let opened =
            tokio::time::timeout(timeout, Scene::open(self.harness, slack, &self.progress));
        let scene = opened.await.unwrap_or_else(|_| {
            let late = format!("the harness has opened no store within {timeout:?}");
            Err(Violation::of(Kind::NotTried, late))
        })?;
        if !self.is_virtual() && !self.progress.has_latency() {
            self.progress.set_latency(latency(&scene.store).await);
        }
        Ok(scene)
    }

    /// Takes `case` for hung after `timeout`, which is longer as calls take longer: a store far away is
    /// slow, and does not hang.
    async fn in_time<T>(
        &self,
        timeout: Duration,
        case: impl Future<Output = Result<T, Violation>>,
    ) -> Result<T, Violation> {
        let timeout = timeout.saturating_mul(self.progress.stretch());
        tokio::time::timeout(timeout, case).await.unwrap_or_else(|_| {
            Err(Violation::of(Kind::Hung, "it hangs: a call has never returned"))
        })
    }

    /// A scene in which connections break. Where there are none, nothing can.
    pub(crate) fn severed<F>(&self, scenario: F) -> LawResult
    where
        F: AsyncFn(&mut Scene<'_>) -> Result<(), Violation>,
    {
        if self.profile.embedded { Ok(()) } else { self.scenario(scenario) }
    }

    /// A scene that plays in the store's own time: virtual on one thread, or real on several.
    pub(crate) fn scenario<F>(&self, scenario: F) -> LawResult
    where
        F: AsyncFn(&mut Scene<'_>) -> Result<(), Violation>,
    {
        self.play(if self.is_virtual() { self.runtime()? } else { self.threads()? }, scenario)
    }

    fn play<F>(&self, runtime: Runtime, scenario: F) -> LawResult
    where
        F: AsyncFn(&mut Scene<'_>) -> Result<(), Violation>,
    {
        self.progress.begin("the scene".to_owned());
        let outcome = runtime.block_on(async {
            let mut scene = self.open(self.slack()).await?;
            self.in_time(self.timeout(), scenario(&mut scene)).await
        });
        self.progress.count();
        runtime.shutdown_background();
        Ok(outcome?)
    }

    /// A scene in real time on several threads, also where the store's clock could be moved.
    pub(crate) fn real_scenario<F>(&self, scenario: F) -> LawResult
    where
        F: AsyncFn(&mut Scene<'_>) -> Result<(), Violation>,
    {
        self.rounds(|number| number < 1, async |scene, _| scenario(scene).await)
    }

    /// A scene on one thread, in the store's own time.
    pub(crate) fn single_thread<F>(&self, scenario: F) -> LawResult
    where
        F: AsyncFn(&mut Scene<'_>) -> Result<(), Violation>,
    {
        self.play(self.runtime()?, scenario)
    }

    /// Rounds of contention on one store, in real time on several threads.
    pub(crate) fn race<F>(&self, round: F) -> LawResult
    where
        F: AsyncFn(&mut Scene<'_>, u32) -> Result<(), Violation>,
    {
        self.rounds(|number| number < self.profile.rounds, round)
    }

    /// [`race`](Self::race), where a round is long.
    pub(crate) fn long_race<F>(&self, round: F) -> LawResult
    where
        F: AsyncFn(&mut Scene<'_>, u32) -> Result<(), Violation>,
    {
        self.rounds(|number| number < self.profile.rounds.div_ceil(10), round)
    }

    /// [`race`](Self::race), where a round goes over many keys: one, and more where they are cheap.
    pub(crate) fn sweep<F>(&self, round: F) -> LawResult
    where
        F: AsyncFn(&mut Scene<'_>, u32) -> Result<(), Violation>,
    {
        let began = Instant::now();
        self.rounds(|number| number < 1 || (number < SWEEPS && began.elapsed() < SWEEPING), round)
    }

    fn rounds<F>(&self, goes_on: impl Fn(u32) -> bool, round: F) -> LawResult
    where
        F: AsyncFn(&mut Scene<'_>, u32) -> Result<(), Violation>,
    {
        let runtime = self.threads()?;
        let outcome = runtime.block_on(async {
            let timeout = self.real_timeout();
            let mut scene = self.open(self.real_slack()).await?;
            for number in (0..).take_while(|number| goes_on(*number)) {
                self.progress.begin(format!("round {number}"));
                self.in_time(timeout, round(&mut scene, number))
                    .await
                    .map_err(|violation| violation.within(format!("in round {number}, ")))?;
                self.progress.count();
            }
            Ok::<_, Violation>(())
        });
        runtime.shutdown_background();
        Ok(outcome?)
    }

    /// How much later than its TTL a key may end.
    fn slack(&self) -> Duration {
        if self.is_virtual() { resolution::lateness() } else { self.real_slack() }
    }

    fn real_slack(&self) -> Duration {
        self.profile.ttl_slack.saturating_add(resolution::lateness())
    }

    fn timeout(&self) -> Duration {
        // In virtual time the clock jumps to this as soon as nothing else can happen.
        if self.is_virtual() { VIRTUAL_CASE_TIMEOUT } else { self.real_timeout() }
    }

    fn real_timeout(&self) -> Duration {
        self.profile.case_timeout.saturating_mul(resolution::stretch())
    }

    fn runtime(&self) -> Result<Runtime, Failure> {
        self.built(Builder::new_current_thread().start_paused(self.is_virtual()))
    }

    fn threads(&self) -> Result<Runtime, Failure> {
        self.built(Builder::new_multi_thread().worker_threads(4))
    }

    /// A runtime on whose threads the laws ask for what they ask for on this one.
    fn built(&self, builder: &mut Builder) -> Result<Runtime, Failure> {
        let promised = resolution::promised();
        let runtime =
            builder.enable_all().on_thread_start(move || resolution::promise(promised)).build();
        runtime.map_err(|error| {
            Violation::of(Kind::NotTried, format!("there is no runtime: {error}")).into()
        })
    }
}

/// The failures of one property, of which proptest keeps only what they print.
#[derive(Default)]
struct Failures {
    first: Cell<Option<(Instant, Kind)>>,
    seen: RefCell<Vec<Violation>>,
}

impl Failures {
    /// What proptest is told of a failed case. A shorter input that fails in another way is not
    /// what is looked for: one that shows a declared deviation would hide a panic.
    fn add(&self, violation: Violation) -> TestCaseResult {
        let (began, kind) = self.first.get().unwrap_or((Instant::now(), violation.kind));
        self.first.set(Some((began, kind)));
        if violation.kind != kind {
            return Ok(());
        }
        let text = violation.to_string();
        self.seen.borrow_mut().push(violation);
        Err(TestCaseError::fail(text))
    }

    /// Whether no shorter input is looked for any more. A hang takes its whole time-out each time.
    fn are_enough(&self) -> bool {
        let enough = |(first, kind): (Instant, Kind)| {
            kind == Kind::Hung || kind == Kind::NotTried || first.elapsed() > SHRINKING
        };
        self.first.get().is_some_and(enough)
    }

    fn named(&self, text: &str) -> Violation {
        let seen = self.seen.borrow();
        let found = seen.iter().find(|violation| violation.to_string() == text);
        found.cloned().unwrap_or_else(|| Violation::of(Kind::Broken, text))
    }
}

/// How long a write takes here, by the quickest of a few that leave nothing behind. What a store makes
/// of them is for the laws to see.
async fn latency(store: &impl KvStore) -> Duration {
    let mut quickest = Duration::MAX;
    for _ in 0..3 {
        let began = Instant::now();
        let calls = async {
            store.set(b"how long it takes", b"", None).await?;
            store.delete(b"how long it takes").await
        };
        if let Ok(Ok(_)) = tokio::time::timeout(Duration::from_secs(1), calls).await {
            quickest = quickest.min(began.elapsed() / 2);
        }
    }
    if quickest == Duration::MAX { Duration::ZERO } else { quickest }
}

/// Runs `caller` on a task of its own for each of the `stores`, all beginning at once.
pub(crate) async fn at_once<S, T, F>(
    stores: impl IntoIterator<Item = S>,
    caller: impl Fn(usize, S) -> F,
) -> Result<Vec<T>, Violation>
where
    S: KvStore,
    T: Send + 'static,
    F: Future<Output = Result<T, Violation>> + Send + 'static,
{
    let callers: Vec<_> =
        stores.into_iter().enumerate().map(|(number, store)| caller(number, store)).collect();
    let start = Arc::new(Barrier::new(callers.len()));
    // Aborts the others when one of them has seen a violation.
    let mut tasks = JoinSet::new();
    for caller in callers {
        let start = start.clone();
        tasks.spawn(async move {
            start.wait().await;
            caller.await
        });
    }
    let mut results = Vec::new();
    while let Some(result) = tasks.join_next().await {
        results.push(result??);
    }
    Ok(results)
}
