//! What an error about the file says, and what it keeps to itself.

use std::time::Duration;

use derp_kv_core::ErrorKind;
use derp_kv_memory::{ManualClock, MemoryConfig, MemoryStore, OnFull};

#[test]
fn an_error_shows_nothing_of_other_tables() {
    for text in [
        "[kv.valkey]\npassword = \"hunter2\n[kv.memory]\nmax_bytes = 1",
        "[kv.valkey]\npassword = hunter2",
        "[kv]\nmemory = \"hunter2\"",
        "[kv.valkey]\npassword = \"a\"\npassword = \"hunter2\"",
    ] {
        let error = MemoryConfig::from_toml_str(text).unwrap_err();
        assert!(!format!("{error} {error:?}").contains("hunter2"), "{error} {error:?}");
    }
}

#[test]
fn config_errors_name_the_field() {
    let config = MemoryConfig::from_toml_str("[kv.valkey]\nmode = 'cluster'").unwrap();
    assert_eq!(config, MemoryConfig::default());
    let reject =
        MemoryConfig::from_toml_str("[kv.memory]\nmax_bytes = 5\non_full = 'reject'").unwrap();
    assert_eq!((reject.max_bytes, reject.on_full), (Some(5), OnFull::Reject));
    for (text, names) in [
        ("[kv.memory]\nmax_bytes = 0", "max_bytes"),
        ("[kv.memory]\nmax_bytes = -1", "max_bytes"),
        ("[kv.memory]\nmax_bytes = 'x'", "max_bytes"),
        ("[kv.memory]\non_full = 'panic'", "on_full"),
        ("[kv.memory]\non_full = 1", "on_full"),
        ("[kv.memory]\nmax_bytes = 1.5", "max_bytes"),
        ("[kv.memory]\nmax_bytes = 99999999999999999999", "line 2"),
        ("kv = 1", "[kv]"),
        ("[kv]\nmemory = 1", "kv.memory"),
        ("[kv.memory]\nmax = 1", "max"),
        ("[kv.memory]\nsweep_every = 20", "sweep_every_ms"),
        ("[kv.memory]\nsweep_every_ms = 0", "sweep_every_ms: must be 1 ms or longer"),
        ("[kv.memory]\nsweep_every_ms = '20ms'", "sweep_every_ms: must be a whole number"),
        ("[kv.memory]\nsweep_every_ms = -20", "sweep_every_ms: must be a whole number"),
        ("[kv.memory", "kv.memory"),
    ] {
        let error = MemoryConfig::from_toml_str(text).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidArgument);
        assert!(error.to_string().contains(names), "{error}");
    }
    let missing = MemoryConfig::from_toml_path("/nowhere/derp.toml").unwrap_err();
    assert!(missing.to_string().contains("/nowhere/derp.toml"));
}

#[test]
fn setters_and_the_table_mean_the_same_and_are_checked_alike() {
    let config =
        MemoryConfig::from_toml_str("[kv.memory]\nmax_bytes = 5\nsweep_every_ms = 20").unwrap();
    assert_eq!(config, MemoryStore::builder().max_bytes(5).sweep_every(Duration::from_millis(20)));
    config.build().unwrap();

    let every = |every| MemoryStore::builder().sweep_every(every);
    for (options, names) in [
        (MemoryStore::builder().max_bytes(0), "max_bytes: must be above zero"),
        (MemoryStore::builder().max_bytes(0).on_full(OnFull::Reject), "max_bytes"),
        (every(Duration::ZERO), "sweep_every_ms: must be 1 ms or longer"),
        (every(Duration::from_micros(999)), "sweep_every_ms"),
    ] {
        let error = options.build().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidArgument);
        assert!(error.to_string().contains(names), "{error}");
    }
    every(Duration::from_millis(1)).build().unwrap();
    every(Duration::MAX).build().unwrap();
}

#[test]
fn options_with_the_same_clock_are_equal() {
    let clock = ManualClock::new();
    let with = |clock: &ManualClock| MemoryStore::builder().clock(clock.clone());
    assert_eq!(with(&clock), with(&clock));
    assert_ne!(with(&clock), with(&ManualClock::new()));
    assert_ne!(with(&clock), MemoryStore::builder());
}
