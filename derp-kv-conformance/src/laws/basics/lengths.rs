use std::time::Duration;

use derp_kv_core::KvStore;

use crate::laws::fits;
use crate::violation::{Violation, ensure, ensure_eq};

const TTL: Option<Duration> = Some(Duration::from_secs(24 * 60 * 60));

/// Around the lengths at which buffers, columns and length fields end.
const LENGTHS: [usize; 21] = [
    0,
    1,
    254,
    255,
    256,
    257,
    1_023,
    1_025,
    4_095,
    4_097,
    8_000,
    8_193,
    32_768,
    65_534,
    65_535,
    65_536,
    65_537,
    100_000,
    131_073,
    600_000,
    1 << 20,
];

/// Bytes without a period that a buffer could have, so that no piece passes for another.
fn value(len: usize, writer: usize) -> Vec<u8> {
    let byte = |place: usize| {
        let mixed = (place ^ (place >> 7) ^ (place >> 13)).wrapping_add(len + writer);
        mixed.to_le_bytes()[0]
    };
    (0..len).map(byte).collect()
}

/// Whether a read found the value, and where it did not, how they differ.
fn same(found: Option<&[u8]>, wanted: &[u8], what: &str) -> Result<(), Violation> {
    if found == Some(wanted) {
        return Ok(());
    }
    let differ = found.map(|found| {
        let place = found.iter().zip(wanted).take_while(|(a, b)| a == b).count();
        format!("{} bytes, which differ from byte {place}", found.len())
    });
    let found = differ.as_deref().unwrap_or("nothing");
    Err(Violation::new(format!("{what} of {} bytes is read as {found}", wanted.len())))
}

const WRITERS: [&str; 5] = ["set", "mset", "set_nx", "compare_and_set", "compare_and_set again"];

async fn write(
    kv: &impl KvStore,
    writer: usize,
    key: &[u8],
    value: &[u8],
) -> Result<(), Violation> {
    let wrote = match writer {
        0 => kv.set(key, value, TTL).await.map(|()| true)?,
        1 => kv.mset(&[(b"beside", b"1"), (key, value)], TTL).await.map(|()| true)?,
        2 => {
            kv.delete(key).await?;
            kv.set_nx(key, value, TTL).await? && !kv.set_nx(key, b"second", None).await?
        }
        3 => {
            kv.set(key, b"small", None).await?;
            kv.compare_and_set(key, b"small", value, TTL).await?
        }
        _ => {
            let before = self::value(value.len(), 3);
            kv.compare_and_set(key, &before, value, TTL).await?
        }
    };
    ensure!(wrote, "{} of {} bytes did not write", WRITERS[writer], value.len());
    Ok(())
}

/// Values of each length, by each way to write and to read them.
pub(super) async fn any_length_of_value(kv: &impl KvStore) -> Result<(), Violation> {
    for len in LENGTHS {
        for (writer, name) in WRITERS.iter().enumerate() {
            let wanted = value(len, writer);
            write(kv, writer, b"k", &wanted).await?;
            same(kv.get(b"k").await?.as_deref(), &wanted, name)?;
            let dated = kv.get_with_ttl(b"k").await?;
            let expiry = dated.as_ref().map(|(_, expiry)| *expiry);
            same(dated.as_ref().map(|(value, _)| &value[..]), &wanted, name)?;
            let kept = expiry.is_some_and(|expiry| fits(expiry, TTL));
            ensure!(kept, "{name} of {len} bytes expires in {expiry:?}, of {TTL:?}");
            for value in kv.mget(&[b"k", b"k"]).await? {
                same(value.as_deref(), &wanted, name)?;
            }
            ensure!(kv.exists(b"k").await?, "{name} of {len} bytes left nothing");
        }
        let last = value(len, WRITERS.len() - 1);
        ensure!(kv.expire(b"k", Duration::from_secs(60)).await?, "expire of {len} bytes is false");
        same(kv.get(b"k").await?.as_deref(), &last, "what was given an expiry")?;
        ensure!(
            kv.compare_and_delete(b"k", &last).await?,
            "{len} bytes do not match themselves, to be deleted"
        );
        ensure_eq!(kv.exists(b"k").await?, false, "the presence of {len} deleted bytes");
    }
    Ok(())
}

/// Keys of a few hundred bytes that differ in the last one only.
pub(super) async fn any_length_of_key(kv: &impl KvStore) -> Result<(), Violation> {
    for len in [1, 31, 32, 33, 63, 64, 65, 127, 128, 129, 250, 255, 256, 257, 300, 511, 513] {
        let keys = [b'a', b'b', b'c'].map(|last| {
            let mut key = vec![b'k'; len];
            key[len - 1] = last;
            key
        });
        let [first, second, missing] = &keys;
        kv.set(first, b"first", None).await?;
        kv.mset(&[(second, b"second")], None).await?;
        let values = kv.mget(&[first, missing, second]).await?;
        let values: Vec<_> = values.iter().map(Option::as_deref).collect();
        ensure_eq!(
            values,
            vec![Some(&b"first"[..]), None, Some(b"second")],
            "what is under keys of {len} bytes that differ in the last"
        );
        ensure!(!kv.delete(missing).await?, "a missing key of {len} bytes was deleted");
        ensure_eq!(kv.delete_many(&[first, second]).await?, 2, "the count, of {len} bytes a key,");
    }
    Ok(())
}
