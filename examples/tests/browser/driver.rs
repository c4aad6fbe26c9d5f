//! A headless Chromium, driven by its chromedriver over WebDriver, which is JSON over HTTP.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

/// How long the page may take to show something: longer than the rate limit's minute.
const PATIENCE: Duration = Duration::from_secs(120);

/// What an answer calls a reference to an element.
const ELEMENT: &str = "element-6066-11e4-a52e-4f735466cecf";

/// The keys that have no character, as WebDriver names them.
pub(crate) mod key {
    pub(crate) const TAB: &str = "\u{E004}";
    pub(crate) const ENTER: &str = "\u{E007}";
    pub(crate) const SPACE: &str = " ";
    pub(crate) const UP: &str = "\u{E013}";
    pub(crate) const RIGHT: &str = "\u{E014}";
    pub(crate) const DOWN: &str = "\u{E015}";
}

/// A chromedriver. Dropped, it is ended.
struct Driver {
    process: Child,
    /// Where it and the browser keep what they do not clean up themselves.
    folder: PathBuf,
    at: SocketAddr,
}

/// A browser. Dropped, it is closed.
pub(crate) struct Browser {
    driver: Driver,
    session: String,
}

impl Driver {
    fn start() -> Self {
        static STARTED: AtomicU32 = AtomicU32::new(0);
        let number = STARTED.fetch_add(1, Ordering::Relaxed);
        // Not in the target folder: the path of a socket in it may have some hundred bytes and no more.
        let folder = format!("derp-kv-browser-{}-{number}", std::process::id());
        let folder = std::env::temp_dir().join(folder);
        std::fs::create_dir_all(&folder).unwrap();
        let mut command = Command::new(named("CHROMEDRIVER", "chromedriver"));
        command.env("TMPDIR", &folder).arg("--port=0").stdout(Stdio::piped()).stderr(Stdio::null());
        let process = command.spawn();
        let mut process = process.unwrap_or_else(|error| missing("chromedriver", &error));
        let mut lines = BufReader::new(process.stdout.take().unwrap()).lines();
        let port = lines.by_ref().find_map(|line| {
            let line = line.expect("text");
            line.strip_suffix('.')?.rsplit_once(" on port ")?.1.parse().ok()
        });
        // A full pipe would stop it.
        std::thread::spawn(move || lines.for_each(drop));
        let port: u16 = port.unwrap_or_else(|| missing("chromedriver", &"it says no port"));
        Self { process, folder, at: SocketAddr::from(([127, 0, 0, 1], port)) }
    }
}

impl Driver {
    /// Makes a request, and returns the answer's status and value.
    fn ask(&self, method: &str, path: &str, body: &Value) -> io::Result<(u16, Value)> {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let mut stream = TcpStream::connect(self.at)?;
        stream.set_read_timeout(Some(2 * PATIENCE))?;
        let (at, length) = (self.at, body.len());
        let head =
            format!("{method} {path} HTTP/1.1\r\nHost: {at}\r\nContent-Length: {length}\r\n\r\n");
        stream.write_all(format!("{head}{body}").as_bytes())?;

        // It leaves the connection open, so the end of the answer is where its length says.
        let mut answer = BufReader::new(stream);
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            if answer.read_until(b'\n', &mut head)? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        let head = String::from_utf8_lossy(&head).to_lowercase();
        let length = head.lines().find_map(|line| line.strip_prefix("content-length:"));
        let length = length.and_then(|length| length.trim().parse().ok()).unwrap_or(0);
        let mut body = vec![0; length];
        answer.read_exact(&mut body)?;
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
        let mut body: Value = serde_json::from_slice(&body)?;
        Ok((status, body["value"].take()))
    }
}

fn named(variable: &str, name: &str) -> String {
    std::env::var(variable).unwrap_or_else(|_| name.to_owned())
}

fn missing(what: &str, why: &dyn std::fmt::Display) -> ! {
    panic!("{what} does not start ({why}): run scripts/install-chromium.sh")
}

impl Browser {
    pub(crate) fn start() -> Self {
        let driver = Driver::start();
        let mut arguments =
            vec!["--headless=new", "--force-device-scale-factor=1", "--hide-scrollbars"];
        // Chromium's sandbox refuses to work for root.
        if Command::new("id").arg("-u").output().is_ok_and(|id| id.stdout == b"0\n") {
            arguments.push("--no-sandbox");
        }
        let mut options = json!({ "args": arguments });
        if let Ok(chromium) = std::env::var("CHROMIUM") {
            options["binary"] = json!(chromium);
        }
        let wanted = json!({
            "goog:chromeOptions": options,
            "goog:loggingPrefs": { "browser": "ALL" },
            "timeouts": { "script": PATIENCE.as_millis() as u64 },
        });
        let wanted = json!({ "capabilities": { "alwaysMatch": wanted } });
        let (_, value) = driver.ask("POST", "/session", &wanted).expect("chromedriver answers");
        let Some(session) = value["sessionId"].as_str() else {
            missing("chromium", &value["message"])
        };
        Self { session: session.to_owned(), driver }
    }

    /// Makes a command of the session.
    fn command(&self, path: &str, body: &Value) -> Value {
        self.try_command(path, body).unwrap_or_else(|error| panic!("{path} {body}: {error}"))
    }

    fn try_command(&self, path: &str, body: &Value) -> Result<Value, String> {
        let path = format!("/session/{}/{path}", self.session);
        match self.driver.ask("POST", &path, body).expect("chromedriver answers") {
            (200, value) => Ok(value),
            (_, error) => Err(error["message"].to_string()),
        }
    }

    /// Makes a command of the Chrome `DevTools` protocol.
    fn devtools(&self, command: &str, parameters: Value) -> Value {
        self.command("goog/cdp/execute", &json!({ "cmd": command, "params": parameters }))
    }

    pub(crate) fn open(&self, url: &str) {
        self.command("url", &json!({ "url": url }));
    }

    /// What an expression of the page's language is.
    pub(crate) fn value(&self, expression: &str) -> Value {
        let script = format!("return ({expression});");
        self.command("execute/sync", &json!({ "script": script, "args": [] }))
    }

    /// Waits until an expression holds: the browser looks once a frame.
    pub(crate) fn until(&self, expression: &str) {
        let script = format!(
            "const done = arguments[0];
             const look = () => ({expression}) ? done(true) : requestAnimationFrame(look);
             look();"
        );
        let body = json!({ "script": script, "args": [] });
        if let Err(error) = self.try_command("execute/async", &body) {
            let text = self.value("document.body.innerText");
            panic!("never came: {expression}: {error}\n{}", text.as_str().unwrap_or_default());
        }
    }

    /// Waits until the element that a selector finds has a text in it.
    pub(crate) fn reads(&self, selector: &str, text: &str) {
        let (selector, text) = (json!(selector), json!(text));
        self.until(&format!("document.querySelector({selector})?.textContent.includes({text})"));
    }

    /// Clicks what a selector finds, as a mouse would, in the middle of the window: the bar at its top
    /// stays where it is.
    pub(crate) fn click(&self, selector: &str) {
        let scroll = "scrollIntoView({ block: 'center', behavior: 'instant' })";
        self.value(&format!("document.querySelector({}).{scroll}", json!(selector)));
        let wanted = json!({ "using": "css selector", "value": selector });
        let found = self.command("element", &wanted);
        let element = found[ELEMENT].as_str().expect("an element").to_owned();
        self.command(&format!("element/{element}/click"), &json!({}));
    }

    /// Presses keys, one after the other.
    pub(crate) fn press(&self, keys: &[&str]) {
        let down_and_up =
            |key: &&str| ["keyDown", "keyUp"].map(|kind| json!({ "type": kind, "value": key }));
        let strokes: Vec<_> = keys.iter().flat_map(down_and_up).collect();
        let keyboard = json!({ "type": "key", "id": "keyboard", "actions": strokes });
        self.command("actions", &json!({ "actions": [keyboard] }));
    }

    /// Prefers a colour scheme, `light` or `dark`.
    pub(crate) fn prefer(&self, scheme: &str) {
        let scheme = json!([{ "name": "prefers-color-scheme", "value": scheme }]);
        self.devtools("Emulation.setEmulatedMedia", json!({ "features": scheme }));
    }

    /// Makes the window so wide and high, in CSS pixels, on a screen with so many real ones for each.
    pub(crate) fn resize(&self, width: u32, height: u32, scale: u32, mobile: bool) {
        let metrics = json!({
            "width": width, "height": height, "deviceScaleFactor": scale, "mobile": mobile,
        });
        self.devtools("Emulation.setDeviceMetricsOverride", metrics);
    }

    /// Writes a picture of the window.
    pub(crate) fn picture(&self, file: &Path) {
        let shot = self.devtools("Page.captureScreenshot", json!({ "format": "png" }));
        let png = STANDARD.decode(shot["data"].as_str().expect("a picture")).expect("base64");
        std::fs::write(file, png).unwrap();
    }

    /// What the console has said since the last time: where from, and what.
    pub(crate) fn console(&self) -> Vec<(String, String)> {
        let entries = self.command("se/log", &json!({ "type": "browser" }));
        let text = |entry: &Value, name: &str| entry[name].as_str().unwrap_or_default().to_owned();
        let entries = entries.as_array().expect("entries").iter();
        entries.map(|entry| (text(entry, "source"), text(entry, "message"))).collect()
    }
}

impl Drop for Browser {
    /// The driver closes the browser and removes its profile when it is asked to.
    fn drop(&mut self) {
        let closed = self.driver.ask("DELETE", &format!("/session/{}", self.session), &Value::Null);
        if let Err(error) = closed {
            eprintln!("the browser was not closed: {error}");
        }
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}
