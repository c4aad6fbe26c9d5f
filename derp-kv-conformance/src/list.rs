use std::fmt::Write;

/// Calls `callback!` with all laws: the only list of them.
///
/// The callback gets `(…)`, the tokens that follow its name, and then for each area
/// `area { law: "sentence", since "version"; … }`. The tests that
/// [`conformance_tests!`](crate::conformance_tests) makes, the runner and the tables all come
/// from it.
///
/// # Examples
///
/// ```
/// macro_rules! ids {
///     (() $($area:ident { $($law:ident: $sentence:literal, since $since:literal;)* })*) => {
///         [$($(concat!(stringify!($area), "::", stringify!($law))),*),*]
///     };
/// }
/// let ids = derp_kv_conformance::for_each_law! { ids };
/// assert!(ids.contains(&"expiry::none_clears"));
/// assert_eq!(ids.len(), derp_kv_conformance::LAWS.len());
/// ```
#[macro_export]
macro_rules! for_each_law {
    ($($callback:ident)::+) => { $crate::for_each_law! { $($callback)::+, } };
    ($($callback:ident)::+, $($more:tt)*) => {
        $($callback)::+! {
            ($($more)*)
            basics {
                reads_your_writes:
                    "a read answers what the writes before it left, byte for byte, over any history",
                    since "0.1.0";
                any_bytes:
                    "keys and values are arbitrary bytes, the empty ones among them",
                    since "0.1.0";
                keys_are_told_apart:
                    "keys that differ in any byte are different keys, to every operation",
                    since "0.1.0";
                long_keys:
                    "keys work up to the longest, a mebibyte unless the store documents less",
                    since "0.1.0";
                too_long_keys_are_refused:
                    "a key above the store's limit is `InvalidArgument`, and nothing is written",
                    since "0.1.0";
                missing_is_not_an_error:
                    "a missing key is `None`, `false` or 0, never an error",
                    since "0.1.0";
                exists_agrees_with_get:
                    "`exists` is true exactly where `get` finds a value",
                    since "0.1.0";
                set_replaces:
                    "`set` replaces the value and the expiry of an earlier write",
                    since "0.1.0";
                delete_reports_presence:
                    "`delete` is true exactly where it removed a value",
                    since "0.1.0";
            }
            batch {
                mget_keeps_order_and_repeats:
                    "`mget` answers each key in its place, a repeated one each time",
                    since "0.1.0";
                mset_last_wins:
                    "of two equal keys of an `mset`, the later one stays",
                    since "0.1.0";
                mset_sets_ttl_with_value:
                    "`mset` gives every key its TTL in the same step as its value",
                    since "0.1.0";
                delete_many_counts_distinct:
                    "`delete_many` counts the distinct keys that were there",
                    since "0.1.0";
                any_size:
                    "a batch of any size is answered and applied whole, as one of a few keys is",
                    since "0.1.0";
                racing_batches_all_succeed:
                    "racing batches over the same keys, in any order, all succeed",
                    since "0.1.0";
                empty_does_nothing:
                    "an empty batch does nothing",
                    since "0.1.0";
            }
            conditional {
                set_nx_only_when_absent:
                    "`set_nx` writes an absent key only; a present one keeps its value and expiry",
                    since "0.1.0";
                compares_every_byte:
                    "`compare_and_set` and `compare_and_delete` compare every byte",
                    since "0.1.0";
                absent_never_matches:
                    "an absent key never matches, not even the empty value",
                    since "0.1.0";
                swap_sets_expiry:
                    "a swap sets the expiry as `set` does; a refusal keeps it",
                    since "0.1.0";
            }
            expiry {
                expired_is_absent:
                    "an expired key is absent to every operation, at once",
                    since "0.1.0";
                any_history_keeps_its_deadlines:
                    "over any history, each key lives exactly as long as its last TTL says",
                    since "0.1.0";
                invalid_ttl_writes_nothing:
                    "a TTL of zero or above `MAX_TTL` is `InvalidArgument`, and nothing is written",
                    since "0.1.0";
                millisecond_resolution:
                    "a TTL has the resolution that the store declares, by default one millisecond",
                    since "0.1.0";
                fractions_round_up:
                    "a fraction of the resolution rounds up",
                    since "0.1.0";
                ttl_within_bounds:
                    "what is left of a TTL is never zero and never above what was set",
                    since "0.1.0";
                none_clears:
                    "a TTL of `None` means no expiry, also where there was one",
                    since "0.1.0";
                value_and_expiry_agree:
                    "`get_with_ttl` reads value and expiry of one write",
                    since "0.1.0";
                expire_creates_nothing:
                    "`expire` of a missing key is false and creates nothing",
                    since "0.1.0";
                expire_replaces:
                    "`expire` replaces the expiry, be it longer, shorter or none, and keeps the value",
                    since "0.1.0";
                ends_on_time:
                    "to every call, a TTL ends at one moment, also between two milliseconds",
                    since "0.1.0";
                any_length:
                    "a TTL of any length up to `MAX_TTL` is reported, lasts and ends as it was set",
                    since "0.1.0";
                equal_writes_renew:
                    "a write of what is there already starts its TTL anew; a read or a refused call leaves it",
                    since "0.1.0";
                last_write_decides:
                    "whatever was written, deleted or expired before, a key has the expiry of its last write",
                    since "0.1.0";
                expired_gives_way:
                    "what meets an expired key takes nothing from who writes it anew beside it",
                    since "0.1.0";
                handles_agree:
                    "what one handle has done every other one sees at once, and the end of a TTL too",
                    since "0.1.0";
            }
            counter {
                creates_at_by:
                    "`incr` creates an absent key at `by`, with `ttl`",
                    since "0.1.0";
                keeps_expiry:
                    "`incr` leaves an existing key its expiry, whatever `ttl` says",
                    since "0.1.0";
                get_shows_decimal:
                    "`get` shows a counter as `i64::to_string` prints it",
                    since "0.1.0";
                reports_expiry:
                    "`incr` reports the expiry of the value that it returns",
                    since "0.1.0";
                failure_changes_nothing:
                    "what is no decimal `i64`, or would leave its range, is `NotAnInteger` and stays",
                    since "0.1.0";
            }
            scan {
                prefix_is_literal:
                    "no byte of a prefix is a wildcard; the empty prefix means all",
                    since "0.1.0";
                sees_every_stable_key:
                    "a key that exists during the whole scan is yielded",
                    since "0.1.0";
                covers_every_page:
                    "a scan that ends without an error has covered all pages, whatever is dead, rewritten or deleted",
                    since "0.1.0";
                never_invents:
                    "a key that was never written, or lacks the prefix, is never yielded",
                    since "0.1.0";
                ends_when_dropped:
                    "a dropped or halted scan harms nothing",
                    since "0.1.0";
            }
            concurrency {
                linearizable:
                    "of racing calls on one key, some order of one after the other explains all answers",
                    since "0.1.0";
                any_two_calls_have_an_order:
                    "on each key, any two racing calls, `expire` and batches too, are one after the other",
                    since "0.1.0";
                expired_keys_race_as_absent:
                    "an expired key is absent to racing calls, and its removal takes no fresh value away",
                    since "0.1.0";
                values_are_never_torn:
                    "a read beside writes of large values sees one of them whole, with its expiry",
                    since "0.1.0";
                cancel_is_all_or_nothing:
                    "a dropped call is wholly applied or not applied, and harms no later call",
                    since "0.1.0";
                dropped_calls_hold_nothing:
                    "after any number of dropped calls the store serves as before",
                    since "0.1.0";
                value_and_expiry_stay_together:
                    "of racing writes, value and expiry come from the same one",
                    since "0.1.0";
                one_set_nx_wins:
                    "of racing `set_nx` exactly one is true, and none takes the place of a `set`",
                    since "0.1.0";
                increments_all_count:
                    "no racing increment is lost or counted twice",
                    since "0.1.0";
                compare_and_set_loses_no_update:
                    "of racing `compare_and_set` that expect one value exactly one is true",
                    since "0.1.0";
                one_compare_and_delete_wins:
                    "of racing `compare_and_delete` exactly one is true",
                    since "0.1.0";
                one_delete_wins:
                    "of racing deletions exactly one reports the key",
                    since "0.1.0";
                lets_others_run:
                    "a loop of operations lets the other tasks of its thread run",
                    since "0.1.0";
            }
            connection {
                tells_what_was_applied:
                    "a write whose connection breaks says truly whether it may have been applied",
                    since "0.1.0";
                applies_once:
                    "a write whose connection breaks is applied once at most, and answers for that one time",
                    since "0.1.0";
                reads_are_right_or_fail:
                    "a read whose connection breaks answers right, or fails as one to be tried again",
                    since "0.1.0";
                heals:
                    "after its connection broke a store serves again by itself, to each caller its own answer",
                    since "0.1.0";
            }
            errors {
                never_show_values:
                    "no error shows a value",
                    since "0.1.0";
                debug_shows_no_values:
                    "what `Debug` prints of a store shows no value",
                    since "0.1.0";
                refusals_are_certain:
                    "a refused call says that nothing was applied, and that trying again is no use",
                    since "0.1.0";
            }
            prefix {
                isolates:
                    "what happens under one prefix shows under no other",
                    since "0.1.0";
                scan_strips:
                    "a scan yields keys as they were written, without the prefix",
                    since "0.1.0";
                flights_are_its_own:
                    "tenants that use one key share no computation, and the handles of one tenant share each",
                    since "0.1.0";
            }
            wait {
                returns_in_time:
                    "`wait_for_change` returns by `at_most`, and changes nothing",
                    since "0.1.0";
                takes_any_bound:
                    "`wait_for_change` takes any `at_most`, from zero to `Duration::MAX`, and sleeps",
                    since "0.1.0";
                loses_no_change:
                    "a backend that knows of changes loses none of them to a waiter",
                    since "0.1.0";
                hears_each_kind_of_change:
                    "a backend that knows of changes wakes a waiter on each kind of them, whoever makes it, time and again",
                    since "0.1.0";
                wakes_every_waiter:
                    "a change wakes all who wait for it, however many wait, on however many keys, and whoever has gone",
                    since "0.1.0";
            }
            step {
                is_atomic:
                    "racing steps of several handles come to what the core makes of them in some order",
                    since "0.1.0";
                agrees_with_the_core:
                    "over any history, a step answers and leaves what the core makes of what was there",
                    since "0.1.0";
                denial_writes_nothing:
                    "a step that is denied, or only looks, leaves value and expiry as they were",
                    since "0.1.0";
            }
            helpers {
                guarded_get_keeps_what_it_computes:
                    "a value is computed once and read by every process, with its TTL",
                    since "0.1.0";
                guarded_get_computes_once:
                    "a herd in several processes computes once, and everybody gets the value",
                    since "0.1.0";
                guarded_get_keeps_no_error:
                    "an error goes to its caller, and who waited for it hears `Failing`; the lock is free, and the next caller computes",
                    since "0.1.0";
                guarded_get_survives_a_panic:
                    "a computation that panics hands over at once",
                    since "0.1.0";
                guarded_get_survives_dropped_callers:
                    "a caller dropped at any point hands over at once",
                    since "0.1.0";
                guarded_get_succeeds_the_dead:
                    "a holder that crashed, whenever in its life, is succeeded by exactly one, when its lock expires",
                    since "0.1.0";
                invalidate_wins:
                    "a value computed before `invalidate` is not cached after it",
                    since "0.1.0";
                refresh_wins:
                    "a value computed before `refresh` is not cached after it",
                    since "0.1.0";
                idempotent_execute_runs_once:
                    "the work runs once, however slow, over all callers and processes",
                    since "0.1.0";
                idempotent_execute_replays:
                    "a repeated request gets the first body and status code",
                    since "0.1.0";
                idempotent_execute_reports_progress:
                    "a duplicate of work under way gets `InProgress`, and runs nothing",
                    since "0.1.0";
                idempotent_execute_refuses_another_request:
                    "one key with another request is `KeyReused`, during the work and after",
                    since "0.1.0";
                idempotent_execute_frees_failures:
                    "after an error or a dropped call the key is free",
                    since "0.1.0";
                idempotent_execute_keeps_corrupt_records:
                    "a record that cannot be decoded is `Corrupt`, and stays",
                    since "0.1.0";
                idempotent_execute_replays_replies:
                    "a whole response replays byte for byte where its status is definitive, and frees its key where it is not",
                    since "0.1.0";
                idempotent_execute_rejects_the_abandoned:
                    "with `Reject`, work that was begun and left is not done before somebody forgets it; a failure is not left",
                    since "0.1.0";
                rate_limit_is_exact:
                    "of racing calls exactly `limit` are allowed, over all processes",
                    since "0.1.0";
                rate_limit_window_ends:
                    "a window ends when it was told, denied calls or not",
                    since "0.1.0";
                rate_limit_repairs_immortal_counters:
                    "a counter without expiry is given one",
                    since "0.1.0";
                rate_limit_binds_at_once:
                    "a limit that is changed binds the calls that were counted before, in both directions",
                    since "0.1.0";
                rate_limit_counts_costs:
                    "a call counts its cost, and a peek counts nothing",
                    since "0.1.0";
                rate_limit_keeps_its_bound:
                    "no window holds more than a strict limit, nor any time more than a smooth one lets pass in it",
                    since "0.1.0";
                rate_limit_tells_when:
                    "who waits as long as it is told, alone, is admitted, and a millisecond less is too early",
                    since "0.1.0";
                rate_limit_takes_all_or_nothing:
                    "of several limits all count a call or none does, and the answer names one that failed",
                    since "0.1.0";
                rate_limit_denied_takes_nothing:
                    "a call that a smooth or strict limit denies leaves what remains to those that fit",
                    since "0.1.0";
                rate_limit_refund_gives_back:
                    "a refund gives back its cost, down to nothing counted, and lifts no limit",
                    since "0.1.0";
                rate_limit_reset_forgets:
                    "a reset forgets one id, and says whether there was anything",
                    since "0.1.0";
                already_processed_is_false_once:
                    "`already_processed` is false exactly once, over all processes",
                    since "0.1.0";
                process_once_runs_once:
                    "a handler runs once for an event, over all processes",
                    since "0.1.0";
                process_once_forgets_failures:
                    "after an error or a dropped call the event can be delivered again",
                    since "0.1.0";
                process_once_gives_up:
                    "with `give_up_after(n)`, a handler that fails or is dropped runs `n` times, and later deliveries are told so",
                    since "0.1.0";
                leases_exclude:
                    "a lease has one holder at a time, over all processes",
                    since "0.1.0";
                leases_are_renewed:
                    "a lease lasts as long as its living holder keeps it",
                    since "0.1.0";
                leases_outlive_blocked_work:
                    "where the store has a runtime of its own, a lease outlives work that blocks its thread",
                    since "0.1.0";
                leases_are_freed_by_their_owner:
                    "a holder that lost its lease is told, and never frees another's",
                    since "0.1.0";
                lock_keys_are_reserved:
                    "a key or id in another helper's place, or that ends in `:lock` or `:attempt`, is `InvalidArgument`",
                    since "0.1.0";
                ids_are_bounded:
                    "an empty id, or one longer than 1 KiB, is `InvalidArgument`",
                    since "0.1.0";
                records_are_compatible:
                    "keys and records are those of derp-py, in both directions",
                    since "0.1.0";
            }
            cache {
                serves_stale_while_one_refreshes:
                    "of all callers of a stale value one refreshes it; the others get it as it is, at once",
                    since "0.1.0";
                serves_stale_when_the_refresh_fails:
                    "a refresh that fails leaves the stale value to all, changes nothing of it, and is made again after `backoff`",
                    since "0.1.0";
                serves_nothing_past_the_stale_window:
                    "nothing is served that is older than TTL and stale time, whichever computations fail or are slow",
                    since "0.1.0";
                cools_down_after_a_failure:
                    "after a failure every process hears `Failing`, and when to come again, until that is over or the key is invalidated",
                    since "0.1.0";
                refreshes_early:
                    "with `early` one caller refreshes a value in the last part of its TTL, and the others get it as it is",
                    since "0.1.0";
                invalidate_wins_over_a_refresh:
                    "a value that a refresh computed before `invalidate`, `refresh` or `put` is not cached after it",
                    since "0.1.0";
                lets_the_computation_decide:
                    "a computation says how long its value is kept, or that it is not; jitter shortens a TTL, and no more than it may",
                    since "0.1.0";
                succeeds_a_dead_refresher:
                    "of a refresh whose holder crashed, the stale value is served until its lock expires; then exactly one refreshes",
                    since "0.1.0";
                keeps_typed_values:
                    "typed values are kept as JSON, absences for a TTL of their own, and what cannot be decoded counts as missing",
                    since "0.1.0";
                refreshes_in_background:
                    "nobody waits for a refresh of a `Cache`, not even the caller that begins it; one that panics is made again",
                    since "0.1.0";
                outlives_its_callers:
                    "a computation of a `Cache` goes on without its caller, and who waits for it gets its value",
                    since "0.1.0";
                computes_many_together:
                    "`get_many` computes exactly the missing keys that nobody else computes, in one call, and answers each key in its place",
                    since "0.1.0";
            }
            herd {
                survives_a_stall:
                    "over a stall of the origin, callers that give up are answered as well as without the library",
                    since "0.1.0";
                waits_for_no_hung_computation:
                    "each computation that hangs holds the other callers for no longer than `lock_ttl`",
                    since "0.1.0";
                nests:
                    "a call for a key inside of its own computation returns, at any depth",
                    since "0.1.0";
                sees_what_is_stored:
                    "who waits for a computation sees a value that somebody stores meanwhile",
                    since "0.1.0";
                survives_a_slow_store:
                    "a store slower than a lock holds no caller, and is not taken for a holder",
                    since "0.1.0";
                clones_share_flights:
                    "all clones of a handle share one computation, and stores opened apart share none",
                    since "0.1.0";
            }
            faults {
                guarded_get_goes_on:
                    "whichever call fails, nobody computes beside a living holder, and the next caller gets the value",
                    since "0.1.0";
                idempotent_execute_runs_once:
                    "whichever call fails, the work is done once, and a client that tries again gets its outcome",
                    since "0.1.0";
                process_once_runs_once:
                    "whichever call fails, the handler succeeds once, and the event is marked in the end",
                    since "0.1.0";
                already_processed_is_false_once:
                    "a failed call has marked the event or not, as its error says; nothing is told as new twice",
                    since "0.1.0";
                rate_limit_counts_what_was_applied:
                    "a failed call is counted or not, as its error says, and leaves no counter without expiry",
                    since "0.1.0";
                leases_stay_exclusive:
                    "whichever call fails, a lease has one holder at a time, and is free in the end",
                    since "0.1.0";
            }
        }
    };
}

/// A promise that every store keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[non_exhaustive]
pub struct Law {
    /// `area::law`, as in the documentation of the trait and in the name of the test.
    pub id: &'static str,
    /// The area alone.
    pub area: &'static str,
    /// What is promised.
    pub sentence: &'static str,
    /// The version of the suite that had it first.
    pub since: &'static str,
}

impl Law {
    /// The law of this id.
    #[must_use]
    pub fn named(id: &str) -> Option<&'static Self> {
        LAWS.iter().find(|law| law.id == id)
    }
}

macro_rules! laws {
    (() $($area:ident { $($law:ident: $sentence:literal, since $since:literal;)* })*) => {
        /// All laws, in the order of [`for_each_law!`](crate::for_each_law).
        pub const LAWS: &[Law] = &[$($(Law {
            id: concat!(stringify!($area), "::", stringify!($law)),
            area: stringify!($area),
            sentence: $sentence,
            since: $since,
        },)*)*];
    };
}

crate::for_each_law! { laws }

/// All laws as tables in Markdown, one for each area under its name, as `LAWS.md` shows them.
#[must_use]
pub fn law_tables() -> String {
    let mut tables = String::new();
    for laws in LAWS.chunk_by(|one, next| one.area == next.area) {
        // Writing to a string cannot fail.
        let _ =
            write!(tables, "\n## {}\n\n| law | promise | since |\n|---|---|---|\n", laws[0].area);
        for Law { id, sentence, since, .. } in laws {
            let _ = writeln!(tables, "| `{id}` | {sentence} | {since} |");
        }
    }
    tables.push('\n');
    tables
}
