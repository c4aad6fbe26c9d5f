//! Somebody who looks at the page and presses its buttons.

use serde_json::json;

use crate::driver::Browser;

/// The page, where every press of a control is noted.
pub(crate) struct Visitor {
    pub(crate) browser: Browser,
    pressed: Vec<String>,
}

impl Visitor {
    pub(crate) fn at(url: &str) -> Self {
        let browser = Browser::start();
        browser.resize(1200, 900, 1, false);
        browser.prefer("light");
        browser.open(url);
        browser.reads("#live", "Live");
        Self { browser, pressed: Vec::new() }
    }

    pub(crate) fn click(&mut self, selector: &str) {
        self.browser
            .until(&format!("document.querySelector({}).ariaDisabled !== 'true'", json!(selector)));
        self.browser.click(selector);
        self.pressed.push(selector.to_owned());
    }

    pub(crate) fn reads(&self, selector: &str, text: &str) {
        self.browser.reads(selector, text);
    }

    pub(crate) fn switch(&mut self, replica: &str) {
        self.click(&format!("[name=replica][value={replica}]"));
        self.browser.until(&format!("told.replica === '{replica}'"));
    }

    /// Asserts that each control of the page was pressed.
    pub(crate) fn has_pressed_everything(&self) {
        let pressed = json!(self.pressed);
        let left = format!(
            "[...document.querySelectorAll('button, [type=radio]')]
                .filter(node => !{pressed}.some(selector => node.matches(selector)))
                .map(node => node.outerHTML)"
        );
        assert_eq!(self.browser.value(&left), json!([]), "each control is pressed");
    }

    /// Asserts that the console has said nothing but that the answers of these many requests had such a
    /// status, which a browser says by itself.
    pub(crate) fn console_has_only(&self, statuses: &[&str]) {
        let console = self.browser.console();
        let (network, wrong): (Vec<_>, Vec<_>) =
            console.into_iter().partition(|(source, _)| source == "network");
        assert!(wrong.is_empty(), "{wrong:?}");
        assert_eq!(network.len(), statuses.len(), "{network:?}");
        for ((_, message), status) in network.iter().zip(statuses) {
            assert!(message.contains(status), "{network:?}");
        }
    }
}
