use derp_kv_core::{Counter, Error, ErrorKind, Expiry, KvStore, Result};
use derp_kv_memory::MemoryStore;

use super::add;
use crate::mutants::broken::{Mutant, mutant};
use crate::mutants::defect::{Ttl, defects};

const LAW: &str = "counter::failure_changes_nothing";
const EXACT: &str = "counter::get_shows_decimal";

pub(super) fn mutants() -> Vec<Mutant> {
    vec![
        mutant::<CutsNewline>(LAW, "a newline after a number is cut"),
        mutant::<CutsNul>(LAW, "a NUL ends a number"),
        mutant::<TrimsBlanks>(LAW, "blanks before a number are cut"),
        mutant::<Underscores>(LAW, "underscores in a number are left out"),
        mutant::<Commas>(LAW, "commas in a number are left out"),
        mutant::<Hexadecimal>(LAW, "a number may be hexadecimal"),
        mutant::<Floats>(LAW, "a value that is a float without a fraction is an integer"),
        mutant::<Fractions>(LAW, "the fraction of a number is cut"),
        mutant::<PlusSign>(LAW, "a number may have a plus sign"),
        mutant::<LeadingZeros>(LAW, "a number may have leading zeros"),
        mutant::<MinusZero>(LAW, "a minus zero is zero"),
        mutant::<AnyDigits>(LAW, "digits of any script are digits"),
        mutant::<EmptyIsZero>(LAW, "the empty value is zero"),
        mutant::<BlankIsZero>(LAW, "a value of blanks is zero"),
        mutant::<Truth>(LAW, "true is one and false is zero"),
        mutant::<NullIsZero>(LAW, "null is zero"),
        mutant::<Quoted>(LAW, "a number may stand in quotes, as in JSON"),
        mutant::<Atoi>(LAW, "the digits that a value begins with are its number"),
        mutant::<BigEndian>(LAW, "eight bytes are an integer in binary"),
        mutant::<Unsigned>(LAW, "a number up to 2^64 is taken, and wraps"),
        mutant::<Saturates>(LAW, "a sum above the range is its upper end"),
        mutant::<SaturatesBelow>(LAW, "a sum below the range is its lower end"),
        mutant::<WrapsBelow>(LAW, "a sum below the range wraps"),
        mutant::<ParseSaturates>(LAW, "a number above the range is its upper end"),
        mutant::<ZeroIsFree>(LAW, "adding zero does not look at the value"),
        mutant::<RefusalClears>(LAW, "a refused increment clears the expiry"),
        mutant::<RefusalRenews>(LAW, "a refused increment sets the expiry that was asked for"),
        mutant::<RefusalDeletes>(LAW, "a value that is no integer is deleted when it is refused"),
        mutant::<WritesFirst>(LAW, "a sum that leaves the range is stored before it is refused"),
        mutant::<OverflowIsArgument>(LAW, "an overflow is an `InvalidArgument`"),
        mutant::<ReadsFloat>(EXACT, "a counter is read as a float"),
        mutant::<AddsFloat>(EXACT, "what is added is a float"),
        mutant::<Narrow>(EXACT, "what is added is cut to 32 bits"),
        mutant::<LowestIsRefused>(EXACT, "the least of all integers is refused"),
        mutant::<Exponents>(EXACT, "a counter above 10^15 is shown with an exponent"),
        mutant::<Sixteen>(EXACT, "a counter is shown with sixteen digits at most"),
    ]
}

/// Adds with a parser that takes what `more` takes, too.
async fn parsed(
    kv: &MemoryStore,
    key: &[u8],
    by: i64,
    ttl: Ttl,
    more: impl Fn(&str) -> Option<i64> + Send + Sync,
) -> Result<Counter> {
    let sum = |before: &[u8]| {
        let number = Counter::parse(before);
        let number = number
            .or_else(|error| std::str::from_utf8(before).ok().and_then(&more).ok_or(error))?;
        Counter::add(number, by)
    };
    add(kv, key, ttl, sum, |sum| sum.to_string()).await
}

/// Adds as `sum` does.
async fn summed(
    kv: &MemoryStore,
    key: &[u8],
    ttl: Ttl,
    sum: impl Fn(i64) -> Result<i64> + Send + Sync,
) -> Result<Counter> {
    add(kv, key, ttl, |before| sum(Counter::parse(before)?), |sum| sum.to_string()).await
}

/// Makes a store of each parser.
macro_rules! parsers {
    ($($name:ident: $text:ident => $number:expr;)*) => {
        defects! {$(
            $name {
                incr(self, kv, key, by, ttl) { parsed(kv, key, by, ttl, |$text| $number).await }
            }
        )*}
    };
}

parsers! {
    CutsNewline: text => text.strip_suffix('\n')?.parse().ok();
    CutsNul: text => text.split_once('\0')?.0.parse().ok();
    TrimsBlanks: text => text.trim_start_matches(' ').parse().ok();
    Underscores: text => text.replace('_', "").parse().ok();
    Commas: text => text.replace(',', "").parse().ok();
    Hexadecimal: text => i64::from_str_radix(text.strip_prefix("0x")?, 16).ok();
    Floats: text => {
        let float = text.parse::<f64>().ok()?;
        (float.fract() == 0.0 && text.contains(['.', 'e', 'E'])).then_some(float as i64)
    };
    Fractions: text => text.split_once('.')?.0.parse().ok();
    PlusSign: text => text.strip_prefix('+')?.parse().ok();
    LeadingZeros: text => text.strip_prefix('0')?.parse().ok();
    MinusZero: text => (text == "-0").then_some(0);
    AnyDigits: text => {
        let digits = text.chars().map(|c| match c {
            '０'..='９' => char::from_digit(c as u32 - '０' as u32, 10),
            '٠'..='٩' => char::from_digit(c as u32 - '٠' as u32, 10),
            c => Some(c),
        });
        digits.collect::<Option<String>>()?.parse().ok()
    };
    EmptyIsZero: text => text.is_empty().then_some(0);
    BlankIsZero: text => (text.trim().is_empty() && !text.is_empty()).then_some(0);
    Truth: text => text.parse::<bool>().ok().map(i64::from);
    NullIsZero: text => (text == "null").then_some(0);
    Quoted: text => text.strip_prefix('"')?.strip_suffix('"')?.parse().ok();
    Atoi: text => {
        let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        text[..end].parse().ok()
    };
    BigEndian: text => text.as_bytes().try_into().ok().map(i64::from_be_bytes);
    Unsigned: text => text.parse::<u64>().ok().filter(|_| !text.starts_with(['+', '0'])).map(|n| n as i64);
    ParseSaturates: text => {
        let digits = !text.starts_with('0') && text.bytes().all(|byte| byte.is_ascii_digit());
        (digits && text.len() > 18).then_some(i64::MAX - 1)
    };
}

defects! {
    Saturates {
        incr(self, kv, key, by, ttl) {
            let above = by > 0;
            summed(kv, key, ttl, |n| if above { Ok(n.saturating_add(by)) } else { Counter::add(n, by) })
                .await
        }
    }
    SaturatesBelow {
        incr(self, kv, key, by, ttl) {
            let below = by < 0;
            summed(kv, key, ttl, |n| if below { Ok(n.saturating_add(by)) } else { Counter::add(n, by) })
                .await
        }
    }
    WrapsBelow {
        incr(self, kv, key, by, ttl) {
            let below = by < 0;
            summed(kv, key, ttl, |n| if below { Ok(n.wrapping_add(by)) } else { Counter::add(n, by) })
                .await
        }
    }
    ZeroIsFree {
        incr(self, kv, key, by, ttl) {
            if by == 0 && kv.exists(key).await? {
                return Ok(Counter { value: 0, expiry: Expiry::Never });
            }
            kv.incr(key, by, ttl).await
        }
    }
    RefusalClears {
        incr(self, kv, key, by, ttl) {
            let result = kv.incr(key, by, ttl).await;
            if let (Err(_), Some(value)) = (&result, kv.get(key).await?) {
                kv.set(key, &value, None).await?;
            }
            result
        }
    }
    RefusalRenews {
        incr(self, kv, key, by, ttl) {
            let result = kv.incr(key, by, ttl).await;
            if let (Err(_), Some(ttl)) = (&result, ttl) {
                kv.expire(key, ttl).await?;
            }
            result
        }
    }
    RefusalDeletes {
        incr(self, kv, key, by, ttl) {
            let result = kv.incr(key, by, ttl).await;
            if result.as_ref().is_err_and(|error| error.kind() == ErrorKind::NotAnInteger) {
                kv.delete(key).await?;
            }
            result
        }
    }
    WritesFirst {
        incr(self, kv, key, by, ttl) {
            let sum = |before: &[u8]| Ok(Counter::parse(before)?.wrapping_add(by));
            let overflows = match kv.get(key).await? {
                Some(before) => Counter::parse(&before).is_ok_and(|n| n.checked_add(by).is_none()),
                None => false,
            };
            let counter = add(kv, key, ttl, sum, |sum| sum.to_string()).await?;
            if overflows {
                return Err(Error::new(ErrorKind::NotAnInteger, "the sum leaves the range"));
            }
            Ok(counter)
        }
    }
    OverflowIsArgument {
        incr(self, kv, key, by, ttl) {
            let refused = |_| Error::new(ErrorKind::InvalidArgument, "the increment is too large");
            summed(kv, key, ttl, |n| Counter::add(n, by).map_err(refused)).await
        }
    }
    ReadsFloat {
        incr(self, kv, key, by, ttl) {
            summed(kv, key, ttl, |n| Counter::add(n as f64 as i64, by)).await
        }
    }
    AddsFloat {
        incr(self, kv, key, by, ttl) {
            summed(kv, key, ttl, |n| Counter::add(n, by as f64 as i64)).await
        }
    }
    Narrow {
        incr(self, kv, key, by, ttl) {
            summed(kv, key, ttl, |n| Counter::add(n, i64::from(by as i32))).await
        }
    }
    LowestIsRefused {
        incr(self, kv, key, by, ttl) {
            let refused = || Error::new(ErrorKind::NotAnInteger, "the sum leaves the range");
            let sum = |n| Counter::add(n, by).and_then(|n| n.checked_abs().map(|_| n).ok_or_else(refused));
            summed(kv, key, ttl, sum).await
        }
    }
    Exponents {
        incr(self, kv, key, by, ttl) {
            let sum = |before: &[u8]| {
                let text = String::from_utf8_lossy(before).into_owned();
                let number = match text.contains('e') {
                    true => text.parse::<f64>().map_or(0, |number| number as i64),
                    false => Counter::parse(before)?,
                };
                Counter::add(number, by)
            };
            let show = |sum: i64| {
                if sum.unsigned_abs() > 1 << 50 { format!("{:e}", sum as f64) } else { sum.to_string() }
            };
            add(kv, key, ttl, sum, show).await
        }
    }
    Sixteen {
        incr(self, kv, key, by, ttl) {
            let sum = |before: &[u8]| Counter::add(Counter::parse(before)?, by);
            let show = |sum: i64| {
                let mut digits = sum.to_string();
                digits.truncate(16);
                digits
            };
            add(kv, key, ttl, sum, show).await
        }
    }
}
