use sha2::{Digest, Sha256};

use crate::coordinate::keys::MAX_ID;
use crate::coordinate::token::hex;
use crate::once::id::id_of;

/// The id of the record of a request: a key is one client's own, for one method and path.
pub(crate) fn record_id(client: &str, method: &str, path: &str, key: &str) -> String {
    let id = id_of(&[client, method, path, key]);
    // A long path or key must not be a reason to refuse a request. No id of parts looks like the hash,
    // as each part ends in `/`.
    if id.len() > MAX_ID { hex(&Sha256::digest(id)) } else { id }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_one_clients_own_for_one_method_and_path() {
        assert_eq!(record_id("ada", "POST", "/orders", "k/1"), "ada/POST/%2Forders/k%2F1/");
        let long = format!("/{}", "x".repeat(2000));
        let ids = [
            record_id("ada", "POST", "/orders", "k"),
            record_id("bob", "POST", "/orders", "k"),
            record_id("ada", "PATCH", "/orders", "k"),
            record_id("ada", "POST", "/order", "k"),
            record_id("ada", "POST", &long, "k"),
            record_id("ada", "POST", &long, "l"),
        ];
        for (at, one) in ids.iter().enumerate() {
            assert!(one.len() <= MAX_ID);
            assert!(ids[at + 1..].iter().all(|other| other != one), "{one}");
        }
    }
}
