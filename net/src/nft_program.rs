//! The program `nft`, for what is rare: writing the whole table, and reading its rules.

use std::{io, process::Stdio, time::Duration};

use serde_json::Value;
use tokio::{io::AsyncWriteExt, process::Command, time::timeout};

use crate::error::Error;

/// Where Debian has it; `PATH` of a service may lack `/usr/sbin`.
const PROGRAM: &str = "/usr/sbin/nft";
/// A table of a thousand guests takes a tenth of a second.
const LIMIT: Duration = Duration::from_secs(30);

async fn run(what: &'static str, args: &[&str], input: Option<String>) -> Result<Vec<u8>, Error> {
    let program = if std::path::Path::new(PROGRAM).exists() {
        PROGRAM
    } else {
        "nft"
    };
    let missing = |source| Error::NftMissing {
        program: program.into(),
        source,
    };
    let mut child = Command::new(program)
        .args(args)
        .stdin(if input.is_some() {
            Stdio::piped()
        } else {
            Stdio::null()
        })
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(missing)?;
    let stdin = child.stdin.take();
    let feed = async move {
        if let (Some(mut stdin), Some(text)) = (stdin, input) {
            // One that refuses before it has read everything says why by itself.
            let _ = stdin.write_all(text.as_bytes()).await;
        }
    };
    let both = async { tokio::join!(feed, child.wait_with_output()).1 };
    let output = match timeout(LIMIT, both).await {
        Ok(output) => output.map_err(missing)?,
        Err(_) => return Err(missing(io::Error::from(io::ErrorKind::TimedOut))),
    };
    if output.status.success() {
        return Ok(output.stdout);
    }
    let errors = String::from_utf8_lossy(&output.stderr);
    let line = errors.lines().next().unwrap_or("it gave no reason");
    Err(Error::Nft {
        what,
        message: line.chars().take(300).collect(),
    })
}

/// Carries out a script in one transaction.
pub(crate) async fn apply(script: String) -> Result<(), Error> {
    run("write the table", &["-f", "-"], Some(script))
        .await
        .map(drop)
}

/// The rules of a table, without what its sets hold; `None` when there is no such table.
pub(crate) async fn rules(table: &str) -> Result<Option<Rules>, Error> {
    match run(
        "list the table",
        &["-j", "-t", "list", "table", "inet", table],
        None,
    )
    .await
    {
        Ok(json) => Rules::parse(&json).map(Some),
        // It says "No such file or directory" where the table is not.
        Err(Error::Nft { message, .. }) if message.contains("No such file") => Ok(None),
        Err(e) => Err(e),
    }
}

/// Base chains of all tables.
pub(crate) async fn chains() -> Result<Vec<Chain>, Error> {
    let json = run("list chains", &["-j", "list", "chains"], None).await?;
    let list: Value = serde_json::from_slice(&json).map_err(|e| odd(&e))?;
    let objects = list
        .get("nftables")
        .and_then(Value::as_array)
        .into_iter()
        .flatten();
    Ok(objects
        .filter_map(|o| Chain::parse(o.get("chain")?))
        .collect())
}

fn odd(e: &dyn std::fmt::Display) -> Error {
    Error::Answer {
        what: "nft's listing",
        why: e.to_string().chars().take(300).collect(),
    }
}

/// A base chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Chain {
    pub(crate) family: String,
    pub(crate) table: String,
    pub(crate) name: String,
    pub(crate) hook: String,
    pub(crate) policy: String,
}

impl Chain {
    fn parse(chain: &Value) -> Option<Self> {
        let text = |key| chain.get(key).and_then(Value::as_str).map(str::to_owned);
        Some(Self {
            family: text("family")?,
            table: text("table")?,
            name: text("name")?,
            hook: text("hook")?,
            policy: text("policy")?,
        })
    }
}

/// A table's declarations and rules as nft lists them, without what changes by itself: handles and
/// counters. Two listings by the same nft are equal when the tables work alike.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Rules(Vec<Value>);

impl Rules {
    pub(crate) fn parse(json: &[u8]) -> Result<Self, Error> {
        let mut list: Value = serde_json::from_slice(json).map_err(|e| odd(&e))?;
        let objects = list.get_mut("nftables").and_then(Value::as_array_mut);
        let objects = objects.ok_or_else(|| odd(&"there is no list of objects in it"))?;
        let mut rules = Vec::with_capacity(objects.len());
        for mut object in std::mem::take(objects) {
            if object.get("metainfo").is_none() {
                strip(&mut object);
                rules.push(object);
            }
        }
        Ok(Self(rules))
    }
}

/// Whether a listing that can be read is still the same when it is read once more; `None` of one
/// that cannot.
#[must_use]
pub fn listing_is_stable(json: &[u8]) -> Option<bool> {
    let rules = Rules::parse(json).ok()?;
    let again = serde_json::json!({ "nftables": rules.0 }).to_string();
    Some(Rules::parse(again.as_bytes()).ok() == Some(rules))
}

/// Takes away handles, counts, and the elements that an old nft lists even when told not to.
fn strip(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.remove("handle");
            for (key, value) in map {
                match (key.as_str(), value) {
                    ("counter", value) => *value = Value::Null,
                    ("set" | "map", Value::Object(set)) if set.contains_key("table") => {
                        set.remove("elem");
                        set.remove("handle");
                    }
                    (_, value) => strip(value),
                }
            }
        }
        Value::Array(list) => list.iter_mut().for_each(strip),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_changes_by_itself_does_not_count() {
        let listing = |handle: u32, packets: u64, elem: &str, verdict: &str| {
            format!(
                r#"{{"nftables": [{{"metainfo": {{"version": "1"}}}},
                {{"set": {{"table": "t", "name": "s", "handle": {handle}, {elem} "type": "ifname"}}}},
                {{"rule": {{"handle": {handle}, "expr": [
                    {{"counter": {{"packets": {packets}, "bytes": 1}}}}, {{"{verdict}": null}}]}}}}]}}"#
            )
        };
        let parse = |text: String| Rules::parse(text.as_bytes()).unwrap();
        let one = parse(listing(1, 0, "", "drop"));
        assert_eq!(one, parse(listing(7, 9, r#""elem": ["a"],"#, "drop")));
        assert_ne!(one, parse(listing(1, 0, "", "accept")));
    }

    #[test]
    fn odd_listings() {
        for text in [
            "",
            "{}",
            "[]",
            "null",
            r#"{"nftables": 1}"#,
            "{\"nftables\": [",
            "\u{0}",
        ] {
            assert!(
                matches!(Rules::parse(text.as_bytes()), Err(Error::Answer { .. })),
                "{text}"
            );
        }
        assert_eq!(
            Rules::parse(br#"{"nftables": []}"#).unwrap(),
            Rules(Vec::new())
        );
    }
}
