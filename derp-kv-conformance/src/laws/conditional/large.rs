use derp_kv_core::KvStore;

use crate::violation::{Violation, ensure};

/// Lengths at which what compares by a part, a length field or a hash of the start goes wrong.
const LENGTHS: [usize; 9] = [256, 1_025, 4_097, 65_535, 65_536, 65_537, 100_000, 131_072, 1 << 20];

/// Places in which a value of `len` bytes may differ from another, alone.
fn places(len: usize) -> Vec<usize> {
    let all = [0, 31, 255, 256, 1_023, 4_095, 4_096, 32_768, 65_535, 65_536, len / 2, len - 1];
    all.into_iter().filter(|place| *place < len).collect()
}

/// Large values that differ in one byte, or in length alone, are not equal; equal ones are.
pub(super) async fn compares_large_values(kv: &impl KvStore) -> Result<(), Violation> {
    for len in LENGTHS {
        let value = vec![b'v'; len];
        kv.set(b"k", &value, None).await?;
        for place in places(len) {
            let mut other = value.clone();
            other[place] = b'w';
            refuses(kv, &other, &format!("differs from its {len} bytes in byte {place}")).await?;
        }
        let longer = [&value[..], b"v"].concat();
        refuses(kv, &longer, &format!("is a byte longer than its {len}")).await?;
        refuses(kv, &value[1..], &format!("is a byte shorter than its {len}")).await?;
        let found = kv.get(b"k").await?;
        ensure!(found.as_deref() == Some(&value[..]), "refusals changed a value of {len} bytes");
        // Of the same length and ends, and other in the middle.
        let mut next = value.clone();
        next[len / 2] = b'n';
        let swapped = kv.compare_and_set(b"k", &value, &next, None).await?;
        ensure!(swapped, "a value of {len} bytes does not match itself");
        let found = kv.get(b"k").await?;
        ensure!(found.as_deref() == Some(&next[..]), "a swap to {len} bytes left something else");
        refuses(kv, &value, &format!("was there before, of {len} bytes")).await?;
        let deleted = kv.compare_and_delete(b"k", &next).await?;
        ensure!(deleted, "a value of {len} bytes does not match itself, to be deleted");
    }
    Ok(())
}

async fn refuses(kv: &impl KvStore, expected: &[u8], what: &str) -> Result<(), Violation> {
    let swapped = kv.compare_and_set(b"k", expected, b"swapped", None).await?;
    ensure!(!swapped, "compare_and_set swaps a value where the expected one {what}");
    let deleted = kv.compare_and_delete(b"k", expected).await?;
    ensure!(!deleted, "compare_and_delete deletes a value where the expected one {what}");
    Ok(())
}
