//! Values that are nearly integers, and sums at the ends of the range.

use std::time::Duration;

use derp_kv_core::{Counter, ErrorKind, Expiry, KvStore};

use crate::input::Blob;
use crate::laws::expect;
use crate::violation::{Violation, ensure, ensure_eq};

/// What one parser or another takes for an integer, and no decimal `i64` as it is printed.
const NEARLY: &[&[u8]] = &[
    // White space, and what ends a text.
    b"5\n", b"\n5", b"5\r\n", b"5\r", b" 5", b"5 ", b"\t5", b"5\t", b"5\0", b"\x005", b"5\x0b", b"5\x0c",
    b"- 5", b"5 5", b"5 6", b"1 000", "5\u{a0}".as_bytes(), "\u{feff}5".as_bytes(), "5\u{200b}".as_bytes(),
    // Signs and zeros.
    b"+5", b"+0", b"-0", b"00", b"-00", b"05", b"-05", b"0005", b"--5", b"+-5", b"-+5", b"++5", b"5-", b"5+",
    b"-", b"+", b"", b" ", b"\0",
    // Notations.
    b"1_000", b"5_", b"_5", b"5,000", b"1,5", b"1'000", b"0x10", b"0X10", b"0b1", b"0o7", b"0d5", b"#5", b"$5",
    b"10h", b"5L", b"5l", b"5u", b"5i64", b"5n", b"5f", b"5%", b"5;", b"5:", b"5/1", b"5a", b"a5", b"ff", b"a",
    b"1e3", b"1E3", b"1e+3", b"1e0", b"5e-1", b"5.", b".5", b"1.0", b"5.0", b"-5.0", b"5.5", b"0.0", b"-0.0", b"5.00",
    b"NaN", b"nan", b"inf", b"Inf", b"-inf", b"Infinity", b"true", b"false", b"True", b"null", b"NULL", b"nil", b"None",
    b"\"5\"", b"'5'", b"[5]", b"{5}", b"(5)", b"(integer) 5", b":5", b":5\r\n", b"i5e", b"=5", b"1+1", b"2*3",
    // Digits that are not those of ASCII, and bytes that are a number in binary.
    "٥".as_bytes(), "۵".as_bytes(), "５".as_bytes(), "５５".as_bytes(), "1５".as_bytes(), "५".as_bytes(), "²".as_bytes(),
    "Ⅴ".as_bytes(), "−5".as_bytes(), "五".as_bytes(), b"\x05", b"\0\0\0\x05", b"\0\0\0\0\0\0\0\x05",
    b"\x05\0\0\0\0\0\0\0", b"\x80\0\0\0\0\0\0\x05", b"\xff", b"5\xff", b"\xff5", b"5\x80",
    // Beyond the range, and as long as no integer is.
    b"9223372036854775808", b"-9223372036854775809", b"18446744073709551615", b"18446744073709551616",
    b"-18446744073709551615", b"10000000000000000000", b"99999999999999999999", b"-99999999999999999999",
    b"09223372036854775807", b"+9223372036854775807", b"9223372036854775807 ", b"9223372036854775807.0",
    b"9.223372036854775807e18", b"340282366920938463463374607431768211456",
    b"18446744073709551621", b"4294967296000000000000000005",
    b"000000000000000000000000000000000000000000000000000000000000000005",
    b"10000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000",
];

/// Values, and increments with which they leave the range.
const BEYOND: &[(i64, i64)] = &[
    (i64::MAX, 1),
    (i64::MAX, i64::MAX),
    (1, i64::MAX),
    (i64::MAX - 1, 2),
    (i64::MAX / 2 + 1, i64::MAX / 2 + 1),
    (i64::MIN, -1),
    (i64::MIN, i64::MIN),
    (-1, i64::MIN),
    (i64::MIN + 1, -2),
    (i64::MIN / 2, i64::MIN / 2 - 1),
    (i64::MIN, i64::MIN + 1),
];

/// Values, and increments whose sums a float, an unsigned or a shorter integer gets wrong.
const EXACT: &[(i64, i64)] = &[
    (i64::MAX - 1, 1),
    (i64::MIN + 1, -1),
    (i64::MAX, 0),
    (i64::MIN, 0),
    (0, i64::MIN),
    (0, i64::MAX),
    (i64::MAX, i64::MIN),
    (i64::MIN, i64::MAX),
    (i64::MAX, -i64::MAX),
    (i64::MAX, -1),
    (i64::MIN, 1),
    (-1, 1),
    (1, -1),
    (-1, 2),
    (1, -2),
    (1 << 53, 1),
    ((1 << 53) + 1, 1),
    ((1 << 53) + 1, 0),
    (-(1 << 53), -1),
    (1, 1 << 53),
    (0, (1 << 53) + 1),
    (1 << 54, 3),
    (1_234_567_890_123_456_789, 1),
    (-1_234_567_890_123_456_789, -1),
    (999_999_999_999_999_999, 1),
    (1 << 24, 1),
    ((1 << 31) - 1, 1),
    (-(1 << 31), -1),
    ((1 << 32) - 1, 1),
    (1 << 32, -1),
    (0, (1 << 31) + 5),
    (0, (1 << 32) + 5),
    (32_767, 1),
    (65_535, 1),
    (127, 1),
    (255, 1),
    (99_999, 1),
    (999_999, 1),
    (9_999_999_999_999_999, 1),
];

fn decimal(value: i64) -> Vec<u8> {
    value.to_string().into_bytes()
}

/// Checks that `incr` refuses each value that is nearly an integer, and each sum beyond the range,
/// and leaves value and expiry as they are.
pub(super) async fn refuses(kv: &impl KvStore) -> Result<(), Violation> {
    let hour = Duration::from_secs(3_600);
    let day = Duration::from_secs(86_400);
    let nearly = NEARLY.iter().enumerate().map(|(number, value)| {
        // Little, so that no sum leaves the range and is refused for that. Adding nothing is no
        // reason not to look.
        (value.to_vec(), [1, 0, -1][number % 3])
    });
    let beyond = BEYOND.iter().map(|(value, by)| (decimal(*value), *by));
    for (number, (value, by)) in nearly.chain(beyond).enumerate() {
        let key = format!("near/{number}").into_bytes();
        let value = Blob(value);
        for (ttl, other_ttl) in [(None, Some(day)), (Some(hour), None)] {
            kv.set(&key, &value, ttl).await?;
            match kv.incr(&key, by, other_ttl).await {
                Ok(Counter { value: sum, .. }) => {
                    return Err(Violation::new(format!("{value:?} plus {by} came to {sum}")));
                }
                Err(error) => {
                    let expected = ErrorKind::NotAnInteger;
                    ensure_eq!(error.kind(), expected, "the error's kind for {value:?} plus {by}");
                }
            }
            expect(kv, &key, &value, ttl).await?;
        }
    }
    Ok(())
}

/// Checks that `incr` is exact at the ends of the range and where other numbers lose digits.
pub(super) async fn is_exact(kv: &impl KvStore) -> Result<(), Violation> {
    let hour = Duration::from_secs(3_600);
    for (number, (value, by)) in EXACT.iter().enumerate() {
        let key = format!("exact/{number}").into_bytes();
        kv.set(&key, &decimal(*value), Some(hour)).await?;
        let sum = value.wrapping_add(*by);
        let counter = kv.incr(&key, *by, None).await?;
        ensure_eq!(counter.value, sum, "{value} plus {by}");
        ensure!(counter.expiry != Expiry::Never, "{value} plus {by} has lost its expiry");
        expect(kv, &key, &Blob(decimal(sum)), Some(hour)).await?;
        // And where `incr` has made the counter itself.
        let key = format!("made/{number}").into_bytes();
        kv.incr(&key, *value, None).await?;
        expect(kv, &key, &Blob(decimal(*value)), None).await?;
        ensure_eq!(kv.incr(&key, *by, None).await?.value, sum, "{value} by incr plus {by}");
        expect(kv, &key, &Blob(decimal(sum)), None).await?;
    }
    Ok(())
}
