//! The page in a real browser: every button, by mouse and by keyboard, in both colour schemes, on a phone,
//! and while the service goes away.

#[path = "../common/mod.rs"]
mod common;
mod driver;
mod visitor;

use std::ffi::OsStr;
use std::io::Write as _;
use std::path::PathBuf;

use common::program::Program;
use derp_kv_valkey::test_server::Server;
use driver::{Browser, key};
use serde_json::json;
use visitor::Visitor;

/// Pictures and measurements.
fn folder() -> PathBuf {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).with_file_name("browser");
    std::fs::create_dir_all(&folder).unwrap();
    folder
}

#[test]
fn every_button_shows_what_happened() {
    let service = Program::start(&[]);
    let mut page = Visitor::at(&service.url);
    first_paint(&page.browser, &service.url);
    page.reads("#store", "memory, up");

    // The limit's minute begins here, and is over when all the rest is done.
    a_retry_gets_the_first_answer(&mut page);
    the_sixth_order_is_told_when_to_come_back(&mut page);
    a_herd_makes_one_query(&mut page);
    products_are_shown_whatever_the_database_does(&mut page);

    page.click("#webhook-send");
    page.reads("#webhook-answers li:nth-child(3)", "processed before");
    let deliveries =
        "[...document.querySelectorAll('#webhook-answers .pill')].map(node => node.textContent)";
    let expected = json!(["processed", "processed before", "processed before"]);
    assert_eq!(page.browser.value(deliveries), expected);
    page.reads("#payments", "1");

    let counts = "[...document.querySelectorAll('#counts th')].map(node => node.textContent)";
    let expected = ["Products read", "Products dropped", "Orders", "Rate limit", "Webhooks"];
    assert_eq!(page.browser.value(counts), json!(expected));
    page.reads("#counts", "joined 199");
    page.reads("#counts", "replayed 1");
    page.reads("#counts", "denied 1");

    page.has_pressed_everything();
    page.console_has_only(&["429", "503"]);

    looks_well(&page.browser, "all");
    fits_on_a_phone(&page.browser);
    page.console_has_only(&[]);

    page.reads("#limit-text", "5 of 5 left");
    page.reads("#limit-said", "Orders work again.");
    page.browser.until("!document.querySelector('#gauge.denied')");
}

/// Measures when the page is first painted, in a browser that has just begun and in one that has not. Only
/// that it is painted is sure on every machine.
fn first_paint(browser: &Browser, url: &str) {
    let mut log = std::fs::File::create(folder().join("paint.log")).unwrap();
    for visit in ["first", "second"] {
        let paint = "performance.getEntriesByName('first-contentful-paint')[0]?.startTime";
        browser.until(&format!("{paint} > 0"));
        let line = format!("{visit} visit: painted after {} ms", browser.value(paint));
        println!("{line}");
        writeln!(log, "{line}").unwrap();
        browser.open(url);
        browser.reads("#live", "Live");
    }
}

fn a_retry_gets_the_first_answer(page: &mut Visitor) {
    page.reads("#limit-text", "5 of 5 left");
    page.click("#order-send");
    page.reads("#order-answers li", "201 created");
    page.reads("#order-answers li", r#""total_cents":9900"#);
    page.reads("#limit-text", "4 of 5 left");
    page.reads("#orders", "1");
    page.click("#order-again");
    page.reads("#order-answers li:nth-child(2)", "201 replayed");
    page.reads("#order-answers li:nth-child(2)", "The same body, and Idempotent-Replayed: true.");
    let bodies =
        "[...document.querySelectorAll('#order-answers code')].map(node => node.textContent)";
    let bodies = page.browser.value(bodies);
    assert_eq!(bodies[0], bodies[1]);
    let after =
        page.browser.value("[$('orders').textContent, $('limit-text').textContent.slice(0, 11)]");
    assert_eq!(after, json!(["1", "4 of 5 left"]), "a retry orders nothing, and costs nothing");
}

fn the_sixth_order_is_told_when_to_come_back(page: &mut Visitor) {
    for left in (0..4).rev() {
        page.click("#order-send");
        page.reads("#limit-text", &format!("{left} of 5 left"));
    }
    page.click("#order-send");
    page.reads("#order-answers .pill", "429");
    page.reads("#limit-text", "429, Retry-After: orders work again in ");
    page.reads("#limit-said", "Too many orders. They work again in ");
    page.browser.until("document.querySelector('#gauge.denied')");
    assert_eq!(page.browser.value("$('gauge').ariaValueNow"), "0");
    page.reads("#orders", "5");
    let seconds = "Number(/in (\\d+) s/.exec($('limit-text').textContent)[1])";
    let before = page.browser.value(seconds).as_u64().expect("seconds");
    assert!((1..=60).contains(&before), "{before}");
    page.browser.until(&format!("{seconds} < {before}"));
}

fn a_herd_makes_one_query(page: &mut Visitor) {
    page.click("#herd-send");
    page.reads("#with-legend", "199 waited for that answer");
    let drawn = "[$('with').textContent, $('without').textContent,
        document.querySelectorAll('#with-dots .computed').length,
        document.querySelectorAll('#with-dots .joined').length,
        document.querySelectorAll('#without-dots .reached').length]";
    assert_eq!(page.browser.value(drawn), json!(["1", "200", 1, 199, 200]));
    page.reads("#queries", "1");
}

fn products_are_shown_whatever_the_database_does(page: &mut Visitor) {
    let state = |card: &str| format!("#product-{card} [data-is=state]");
    let header = |card: &str| format!("#product-{card} [data-is=header]");
    let note = |card: &str| format!("#product-{card} [data-is=note]");
    let button = |card: &str, what: &str| format!("#product-{card} [data-do={what}]");

    // Works: it is read once, and is there then.
    for (card, name) in [("1", "teapot, 29.00"), ("42", "kettle, 49.50")] {
        page.click(&button(card, "forget"));
        page.reads(&state(card), "not cached");
        page.click(&button(card, "show"));
        page.reads(&header(card), "derp-kv; fwd=miss");
        page.reads(&note(card), "this visitor waited for the database");
        page.reads(&format!("#product-{card} [data-is=answer]"), name);
        page.reads(&state(card), "fresh");
        page.reads(&format!("#product-{card} [data-is=age]"), "fresh for another 4 min");
        page.click(&button(card, "show"));
        page.reads(&header(card), "derp-kv; hit");
    }

    // Fails: what was there is shown, and what was not is not.
    page.switch("fails");
    for card in ["1", "42"] {
        page.click(&button(card, "age"));
        page.reads(&state(card), "stale");
        page.reads(&format!("#product-{card} [data-is=age]"), "past its time for");
        page.click(&button(card, "show"));
        page.reads(&header(card), "derp-kv; hit; ttl=-");
        page.reads(&note(card), "The old one, at once. Nobody waits");
    }
    for card in ["1", "42"] {
        page.browser
            .until(&format!("document.querySelector('{}').textContent === 'stale'", state(card)));
        page.click(&button(card, "show"));
        page.reads(&header(card), "detail=failed");
        page.reads(&note(card), "The old one, at once. It could not be fetched anew");
    }
    looks_well(&page.browser, "page");
    page.click(&button("1", "forget"));
    page.reads(&state("1"), "not cached");
    page.click(&button("1", "show"));
    page.reads("#product-1 [data-is=answer]", "503");
    page.reads(&note("1"), "the database does not answer");

    // Hangs: nobody waits for it who has something to show.
    page.switch("works");
    page.click(&button("42", "forget"));
    page.click(&button("42", "show"));
    page.reads(&header("42"), "derp-kv; fwd=miss");
    page.switch("hangs");
    page.click(&button("42", "age"));
    page.click(&button("42", "show"));
    page.reads(&header("42"), "derp-kv; hit; ttl=-");
    page.reads(&state("42"), "stale, computing");

    // Slow: who has nothing to show waits for two seconds.
    page.switch("slow");
    page.click(&button("1", "forget"));
    page.click(&button("1", "show"));
    page.reads(&state("1"), "not cached, computing");
    page.reads(&state("1"), "fresh");
    page.switch("works");
}

/// Looks at the page in both colour schemes, and takes a picture of its upper part and one of all of it.
fn looks_well(browser: &Browser, name: &str) {
    let mut papers = Vec::new();
    for scheme in ["light", "dark"] {
        browser.prefer(scheme);
        papers.push(browser.value("getComputedStyle(document.body).backgroundColor"));
        let faint = browser.value(include_str!("contrast.js"));
        assert_eq!(faint, json!([]), "{scheme}: each text has a contrast of 4.5 to 1");
        browser.value("scrollTo(0, 0)");
        browser.resize(1080, 1100, 1, false);
        browser.picture(&folder().join(format!("{name}-{scheme}.png")));
        browser.resize(1200, height(browser), 1, false);
        browser.picture(&folder().join(format!("{name}-{scheme}-whole.png")));
        browser.resize(1200, 900, 1, false);
    }
    browser.prefer("light");
    assert_ne!(papers[0], papers[1], "dark is not light");
}

fn height(browser: &Browser) -> u32 {
    let height = browser.value("document.documentElement.scrollHeight").as_u64();
    height.and_then(|height| u32::try_from(height).ok()).expect("a height")
}

fn fits_on_a_phone(browser: &Browser) {
    browser.resize(360, 740, 2, true);
    browser.until("innerWidth === 360");
    let wide = browser.value(
        "[document.documentElement, ...document.querySelectorAll('body *')]
            .filter(node => !node.closest('.scroll, .hidden') && node.getBoundingClientRect().right > 360)
            .map(node => node.outerHTML.slice(0, 80))",
    );
    assert_eq!(wide, json!([]), "nothing is wider than the phone");
    assert_eq!(browser.value("document.documentElement.scrollWidth"), 360);
    browser.resize(360, height(browser), 2, true);
    browser.picture(&folder().join("phone.png"));
}

#[test]
fn an_order_needs_no_mouse() {
    let service = Program::start(&[]);
    let page = Visitor::at(&service.url);
    let browser = &page.browser;
    let mut at = 0;
    let mut seen = Vec::new();
    while browser.value("document.activeElement.id") != "order-product" {
        browser.press(&[key::TAB]);
        at += 1;
        let focus = browser.value(
            "(() => { const node = document.activeElement, shown = node.type === 'radio' ? node.closest('label') : node,
                style = getComputedStyle(shown);
                return [node.id || node.dataset.do || node.value || node.tagName, style.outlineStyle]; })()",
        );
        assert_eq!(focus[1], "solid", "who looks sees where the keyboard is: {focus}");
        seen.push(focus[0].as_str().unwrap().to_owned());
        assert!(at < 20, "the form is reached: {seen:?}");
    }
    let expected =
        ["works", "herd-send", "show", "age", "forget", "show", "age", "forget", "order-product"];
    assert_eq!(seen, expected);

    browser.press(&[key::DOWN, key::TAB, key::UP, key::TAB, key::ENTER]);
    page.reads("#order-answers li", "201 created");
    page.reads("#order-answers li", r#""product_id":1,"quantity":3"#);
    browser.press(&[key::TAB, key::SPACE]);
    page.reads("#order-answers li:nth-child(2)", "201 replayed");
    page.reads("#orders", "1");

    // The switch is one stop, and its arrows choose.
    browser.value("document.querySelector('[name=replica]:checked').focus()");
    browser.press(&[key::RIGHT]);
    browser.until("told.replica === 'slow'");
    page.console_has_only(&[]);
}

#[test]
fn a_store_that_goes_down_is_told_and_comes_back() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let mut server = runtime.block_on(Server::start()).unwrap();
    let config = common::scratch("browser.toml");
    let text = format!("[kv.valkey]\naddresses = [[\"127.0.0.1\", {}]]\n", server.port());
    std::fs::write(&config, text).unwrap();
    let service = Program::start(&["--config".as_ref(), config.as_os_str()]);
    let page = Visitor::at(&service.url);
    let show = || page.browser.click("#product-42 [data-do=show]");
    page.reads("#store", "valkey, up");
    show();
    page.reads("#product-42 [data-is=state]", "fresh");

    server.kill9();
    show();
    page.reads("#store", "valkey, down");
    page.browser.until("document.querySelector('#store-light.no')");
    page.reads("#product-42 [data-is=answer]", "503");
    page.console_has_only(&["503"]);

    runtime.block_on(server.restart()).unwrap();
    let works = "document.querySelector('#store').textContent === 'valkey, up'";
    while page.browser.value(works) != true {
        // The store is asked anew by whoever needs it.
        show();
        page.browser
            .until("document.querySelector('#product-42 [data-do=show]').ariaDisabled === 'false'");
    }
    page.browser.until("document.querySelector('#store-light.ok')");
}

#[test]
fn a_lost_connection_is_told_and_found_again() {
    let mut service = Program::start(&[]);
    let page = Visitor::at(&service.url);
    page.browser.click("#herd-send");
    page.reads("#with-legend", "199 waited for that answer");
    page.browser.until("$('lost').hidden");

    service.child.kill().unwrap();
    service.child.wait().unwrap();
    page.browser.until("!$('lost').hidden");
    page.reads("#live", "Connection lost");
    // A button says so too, and does not stay disabled.
    page.browser.click("#webhook-send");
    page.browser.until("$('webhook-send').ariaDisabled === 'false'");

    let address = service.url.strip_prefix("http://").unwrap();
    let _again = Program::start(&["--listen".as_ref(), OsStr::new(address)]);
    page.reads("#live", "Live");
    page.browser.until("$('lost').hidden");
    // What is shown is that of the new process, and nothing of the old one.
    page.reads("#counts", "Nothing was asked yet.");
    page.reads("#queries", "0");
    assert_eq!(page.browser.value("$('with').textContent"), "0");
    page.browser.click("#herd-send");
    page.reads("#with-legend", "199 waited for that answer");

    for (source, message) in page.browser.console() {
        assert!(source == "network" && message.contains("net::ERR_"), "{source}: {message}");
    }
}
