//! Chromium by chromedriver: just enough of WebDriver.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

/// Time for anything that the browser does.
const PATIENCE: Duration = Duration::from_secs(60);

/// A headless Chromium with a profile of its own, ended when dropped.
pub(crate) struct Browser {
    driver: Child,
    port: u16,
    session: String,
    _profile: tempfile::TempDir,
}

impl Browser {
    pub(crate) fn start() -> Self {
        let mut driver = Command::new("chromedriver")
            .arg("--port=0")
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap_or_else(|error| panic!("chromedriver (package chromium-driver): {error}"));
        let mut lines = BufReader::new(driver.stdout.take().unwrap()).lines();
        let port = lines
            .find_map(|line| {
                let line = line.unwrap();
                let port = line.split("started successfully on port ").nth(1)?;
                port.trim_end_matches('.').parse().ok()
            })
            .unwrap_or_else(|| panic!("chromedriver did not start"));
        // its pipe stays open and is drained
        std::thread::spawn(move || lines.for_each(drop));
        let profile = tempfile::tempdir().unwrap();
        let mut browser = Self {
            driver,
            port,
            session: String::new(),
            _profile: profile,
        };
        let profile = format!("--user-data-dir={}", browser._profile.path().display());
        let args = [
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-quic",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--window-size=900,1200",
            &profile,
        ];
        let wanted = json!({"capabilities": {"alwaysMatch": {
            "browserName": "chrome",
            "goog:chromeOptions": {"args": args, "binary": "/usr/bin/chromium"},
        }}});
        let answer = browser.call("POST", "/session", &wanted);
        browser.session = answer["sessionId"].as_str().unwrap().to_owned();
        browser
    }

    /// One request to the driver; its `value`.
    fn call(&self, method: &str, path: &str, body: &Value) -> Value {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let body = if method == "POST" {
            body.to_string()
        } else {
            String::new()
        };
        write!(
            stream,
            "{method} {path} HTTP/1.1\r\nHost: 127.0.0.1:{}\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\nConnection: close\r\n\r\n{body}",
            self.port,
            body.len()
        )
        .unwrap();
        let mut reader = BufReader::new(stream);
        let mut length = 0;
        loop {
            let mut line = String::new();
            reader.read_line(&mut line).unwrap();
            let line = line.trim_end().to_ascii_lowercase();
            if line.is_empty() {
                break;
            }
            if let Some(value) = line.strip_prefix("content-length:") {
                length = value.trim().parse().unwrap();
            }
        }
        let mut answer = vec![0; length];
        reader.read_exact(&mut answer).unwrap();
        let mut answer: Value = serde_json::from_slice(&answer).unwrap();
        let value = answer["value"].take();
        assert!(value["error"].is_null(), "{method} {path}: {value:#}");
        value
    }

    fn of_session(&self, method: &str, path: &str, body: Value) -> Value {
        self.call(method, &format!("/session/{}{path}", self.session), &body)
    }

    pub(crate) fn go(&self, url: &str) {
        self.of_session("POST", "/url", json!({ "url": url }));
    }

    /// Runs a script in the page; promises are waited for.
    pub(crate) fn script(&self, script: &str) -> Value {
        let body = json!({"script": script, "args": []});
        self.of_session("POST", "/execute/sync", body)
    }

    /// Waits until the script answers something.
    pub(crate) fn wait(&self, script: &str) -> Value {
        let start = Instant::now();
        loop {
            let value = self.script(script);
            if !value.is_null() {
                return value;
            }
            assert!(start.elapsed() < PATIENCE, "nothing came of {script}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Chooses files in a file input.
    pub(crate) fn give(&self, selector: &str, files: &[&Path]) {
        let body = json!({"using": "css selector", "value": selector});
        let found = self.of_session("POST", "/element", body);
        let id = found.as_object().unwrap().values().next().unwrap();
        let paths: Vec<&str> = files.iter().map(|path| path.to_str().unwrap()).collect();
        let path = format!("/element/{}/value", id.as_str().unwrap());
        self.of_session("POST", &path, json!({"text": paths.join("\n")}));
    }

    /// Drops files on the page.
    pub(crate) fn drop_files(&self, files: &[&Path]) {
        let files: Vec<Value> = files
            .iter()
            .map(|path| {
                let bytes = std::fs::read(path).unwrap();
                json!([path.file_name().unwrap().to_str(), STANDARD.encode(bytes)])
            })
            .collect();
        let script = "const transfer = new DataTransfer();\
            for (const [name, data] of arguments[0]) {\
                const bytes = Uint8Array.from(atob(data), (letter) => letter.charCodeAt(0));\
                transfer.items.add(new File([bytes], name));\
            }\
            document.dispatchEvent(new DragEvent('drop', {dataTransfer: transfer, cancelable: true}))";
        let body = json!({"script": script, "args": [files]});
        self.of_session("POST", "/execute/sync", body);
    }

    /// Dark colours from now on, and a narrow window.
    pub(crate) fn dark(&self) {
        let dark = json!({"features": [{"name": "prefers-color-scheme", "value": "dark"}]});
        let body = json!({"cmd": "Emulation.setEmulatedMedia", "params": dark});
        self.of_session("POST", "/goog/cdp/execute", body);
        self.of_session(
            "POST",
            "/window/rect",
            json!({"width": 500, "height": 1000}),
        );
    }

    /// Keeps a picture where `SEV_ATTEST_SCREENSHOTS` says, for people to look at.
    pub(crate) fn screenshot(&self, name: &str) {
        let Some(directory) = std::env::var_os("SEV_ATTEST_SCREENSHOTS") else {
            return;
        };
        let picture = self.of_session("GET", "/screenshot", Value::Null);
        let bytes = STANDARD.decode(picture.as_str().unwrap()).unwrap();
        let path = Path::new(&directory).join(format!("{name}.png"));
        std::fs::write(path, bytes).unwrap();
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        if !self.session.is_empty() && !std::thread::panicking() {
            self.of_session("DELETE", "", Value::Null);
        }
        let _ = self.driver.kill();
        let _ = self.driver.wait();
    }
}
