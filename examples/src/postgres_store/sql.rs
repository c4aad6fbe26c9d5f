//! The statements: one an operation, each atomic by itself.
//!
//! A write reads the clock (`clock_timestamp()`) where its row is locked already: what the clock
//! said before the wait for a lock is out of date after it. A read takes `now()`, which is older
//! than what it sees, so that it never calls a row expired that was replaced in time.
//!
//! `ON CONFLICT` locks the row before it evaluates `SET` and `WHERE`. The others lock first, by
//! `FOR UPDATE` in a query of its own: the select list of that query is evaluated before the lock.
//!
//! The row that `INSERT` would insert is evaluated before it waits for a conflicting one. Where that
//! is gone after the wait, the row is inserted as it was, and its life counts from before the wait.
//! So the insertions of one key lock first, too, and evaluate their row after that. There are two
//! waits that this does not help with: [`MSET`], which would take locks in two passes and deadlock,
//! and a wait for an insertion that is undone, which nobody else can see or lock. There, up to the
//! whole wait is missing from the life, which is at most `statement_timeout`.

/// `bytea`, because text has a collation and an encoding. One at a time makes the table: two that
/// race for it would both fail to see it, and one of them would then fail.
pub(super) const CREATE: &str = "
    SELECT pg_advisory_xact_lock(7237122);
    CREATE TABLE IF NOT EXISTS derp_kv
        (key bytea PRIMARY KEY, value bytea NOT NULL, expires_at timestamptz);
    CREATE INDEX IF NOT EXISTS derp_kv_expires_at ON derp_kv (expires_at)
        WHERE expires_at IS NOT NULL";

/// Without the right to create, `CREATE TABLE IF NOT EXISTS` fails also where there is a table.
pub(super) const EXISTS: &str = "SELECT to_regclass('derp_kv') IS NOT NULL";

/// What a session needs to be told, whatever the database's defaults are: under `REPEATABLE READ` a
/// statement that waited for a row would fail instead of looking at it again. The parameters of
/// each statement weigh the same, so it is planned once; and a plan that was made while the table was
/// empty must not read the whole of a table that has grown.
pub(super) const SESSION: &str = "
    SET default_transaction_isolation = 'read committed';
    SET plan_cache_mode = force_generic_plan;
    SET enable_seqscan = off";

/// Names this session in the words by which [`END`] finds it.
pub(super) const ME: &str = "
    SELECT pid, extract(epoch FROM backend_start)::text FROM pg_stat_activity
    WHERE pid = pg_backend_pid()";

/// Ends a session, so that what it still runs is not applied behind what comes after. A process id
/// alone could belong to another session by now.
pub(super) const END: &str = "
    SELECT pg_terminate_backend(pid, $3::int8) FROM pg_stat_activity
    WHERE pid = $1 AND extract(epoch FROM backend_start)::text = $2";

/// Hears of changes, and answers which process of the server hears.
pub(super) const LISTEN: &str = "LISTEN derp_kv";
pub(super) const LISTENER: &str = "SELECT pg_backend_pid()";

/// Tells other processes of changes, after the commit and in a transaction of its own: one that
/// notifies commits alone in the whole server, and one that also wrote would let all others wait
/// for the disk behind it.
pub(super) const TELL: &str =
    "SELECT pg_notify('derp_kv', bucket) FROM unnest($1::text[]) AS bucket";

/// Removes up to [`SWEPT`] rows that are dead, and skips what somebody works on. Each is looked at again under its
/// lock. `now()` is older than the lock, so what was dead then is dead; the index can use it.
pub(super) const SWEEP: &str = "
    WITH dead AS MATERIALIZED (
        SELECT key FROM derp_kv WHERE expires_at <= now()
        ORDER BY expires_at LIMIT 1000 FOR UPDATE SKIP LOCKED)
    DELETE FROM derp_kv kv USING dead WHERE kv.key = dead.key AND kv.expires_at <= now()";

/// The most rows that one [`SWEEP`] removes.
pub(super) const SWEPT: u64 = 1_000;

/// Microseconds left of a row's life, NULL where it does not end. The clock may have passed the end
/// since `now()`: the reader of the column takes one microsecond for less.
macro_rules! left {
    () => {
        "(extract(epoch FROM expires_at - clock_timestamp()) * 1000000)::int8"
    };
}

/// The end of a life of so many milliseconds from the time at which this is evaluated, NULL for none.
macro_rules! end {
    ($ttl:literal) => {
        concat!("clock_timestamp() + ", $ttl, "::int8 * interval '1 millisecond'")
    };
}

/// Inserts this row of the key `$1`, after whoever works on a row of that key is done with it. The
/// aggregate has read `locked` before a row comes out of it and the row to insert is evaluated.
macro_rules! insert_behind_the_lock {
    ($value:literal, $ttl:literal) => {
        concat!(
            "WITH locked AS MATERIALIZED (SELECT FROM derp_kv WHERE key = $1 FOR UPDATE)
            INSERT INTO derp_kv AS kv SELECT $1::bytea, ",
            $value,
            ", ",
            end!($ttl),
            " FROM (SELECT count(*) FROM locked) AS waited
            ON CONFLICT (key)"
        )
    };
}

pub(super) const GET: &str = concat!(
    "SELECT value, ",
    left!(),
    " FROM derp_kv WHERE key = $1 AND (expires_at IS NULL OR expires_at > now())"
);

pub(super) const TTL: &str = concat!(
    "SELECT ",
    left!(),
    " FROM derp_kv WHERE key = $1 AND (expires_at IS NULL OR expires_at > now())"
);

pub(super) const MGET: &str = "
    SELECT key, value FROM derp_kv
    WHERE key = ANY ($1) AND (expires_at IS NULL OR expires_at > now())";

/// Dead rows count for the length of a page, or else a page of them would end the scan.
pub(super) const SCAN: &str = "
    SELECT key, expires_at IS NULL OR expires_at > now() FROM derp_kv
    WHERE key >= $1 AND key < $2 ORDER BY key LIMIT $3";

/// [`SCAN`] where no key is above all that have the prefix.
pub(super) const SCAN_TO_END: &str = "
    SELECT key, expires_at IS NULL OR expires_at > now() FROM derp_kv
    WHERE key >= $1 ORDER BY key LIMIT $2";

pub(super) const SET: &str = concat!(
    insert_behind_the_lock!("$2::bytea", "$3"),
    " DO UPDATE SET value = excluded.value, expires_at = ",
    end!("$3")
);

/// The rows are locked in the order of their keys, as by every batch: two that race wait for each
/// other in one direction only. A key may stand in it once.
pub(super) const MSET: &str = concat!(
    "INSERT INTO derp_kv SELECT key, value, ",
    end!("$3"),
    " FROM unnest($1::bytea[], $2::bytea[]) AS item (key, value) ORDER BY key
    ON CONFLICT (key) DO UPDATE SET value = excluded.value, expires_at = ",
    end!("$3")
);

pub(super) const SET_NX: &str = concat!(
    insert_behind_the_lock!("$2::bytea", "$3"),
    " DO UPDATE SET value = excluded.value, expires_at = ",
    end!("$3"),
    " WHERE kv.expires_at <= clock_timestamp() RETURNING true"
);

/// Returns no row where the value is no counter, or the sum leaves the range. `encode` leaves digits
/// and the sign as they are and fails on no byte; `CASE` keeps a cast from what it would fail on.
///
/// `SET` reads the clock once for value and expiry: by two readings, a counter that ends between
/// them would be the old one in the one column and a new one in the other.
pub(super) const INCR: &str = concat!(
    insert_behind_the_lock!("convert_to($2::int8::text, 'UTF8')", "$3"),
    " DO UPDATE SET (value, expires_at) = (
        SELECT
            CASE WHEN kv.expires_at <= at THEN excluded.value
            ELSE convert_to((encode(kv.value, 'escape')::int8 + $2::int8)::text, 'UTF8') END,
            CASE WHEN kv.expires_at <= at THEN at + $3::int8 * interval '1 millisecond'
            ELSE kv.expires_at END
        FROM (SELECT clock_timestamp() AS at) AS clock)
    WHERE kv.expires_at <= clock_timestamp() OR CASE
        WHEN length(kv.value) > 20 THEN false
        WHEN encode(kv.value, 'escape') !~ '^(0|-?[1-9][0-9]*)$' THEN false
        ELSE encode(kv.value, 'escape')::numeric
                BETWEEN -9223372036854775808 AND 9223372036854775807
            AND encode(kv.value, 'escape')::numeric + $2::int8
                BETWEEN -9223372036854775808 AND 9223372036854775807 END
    RETURNING convert_from(value, 'UTF8')::int8, ",
    left!()
);

pub(super) const COMPARE_AND_SET: &str = concat!(
    "WITH locked AS MATERIALIZED (
        SELECT key, value, expires_at FROM derp_kv WHERE key = $1 FOR UPDATE)
    UPDATE derp_kv kv SET value = $3, expires_at = ",
    end!("$4"),
    " FROM locked WHERE kv.key = locked.key AND locked.value = $2
        AND (locked.expires_at IS NULL OR locked.expires_at > clock_timestamp())
    RETURNING true"
);

pub(super) const EXPIRE: &str = concat!(
    "WITH locked AS MATERIALIZED (
        SELECT key, expires_at FROM derp_kv WHERE key = $1 FOR UPDATE)
    UPDATE derp_kv kv SET expires_at = ",
    end!("$2"),
    " FROM locked WHERE kv.key = locked.key
        AND (locked.expires_at IS NULL OR locked.expires_at > clock_timestamp())
    RETURNING true"
);

/// The row goes, dead or not. What `RETURNING` evaluates is the row that was locked and deleted.
pub(super) const DELETE: &str = "
    DELETE FROM derp_kv WHERE key = $1
    RETURNING expires_at IS NULL OR expires_at > clock_timestamp()";

pub(super) const COMPARE_AND_DELETE: &str = "
    WITH locked AS MATERIALIZED (
        SELECT key, value, expires_at FROM derp_kv WHERE key = $1 FOR UPDATE)
    DELETE FROM derp_kv kv USING locked WHERE kv.key = locked.key AND locked.value = $2
        AND (locked.expires_at IS NULL OR locked.expires_at > clock_timestamp())
    RETURNING true";

/// A plain `DELETE` would lock the rows in the order in which it happens to find them.
pub(super) const DELETE_MANY: &str = "
    WITH locked AS MATERIALIZED (
        SELECT key FROM derp_kv WHERE key = ANY ($1) ORDER BY key FOR UPDATE),
    gone AS (
        DELETE FROM derp_kv kv USING locked WHERE kv.key = locked.key
        RETURNING kv.expires_at IS NULL OR kv.expires_at > clock_timestamp() AS live)
    SELECT count(*) FILTER (WHERE live) FROM gone";

/// What each connection prepares.
pub(super) const PREPARED: [&str; 14] = [
    GET,
    TTL,
    MGET,
    SCAN,
    SCAN_TO_END,
    SET,
    MSET,
    SET_NX,
    INCR,
    COMPARE_AND_SET,
    EXPIRE,
    DELETE,
    COMPARE_AND_DELETE,
    DELETE_MANY,
];
