//! The program `nft`, for what is rare: writing the whole table, and reading its rules.

use std::{io, process::Stdio, time::Duration};

use serde_json::{Value, json};
use tokio::{io::AsyncWriteExt, process::Command, time::timeout};

use crate::{elements::Family, error::Error};

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

/// The rules of the agent's tables, without what their sets hold; `None` when one is missing.
pub(crate) async fn rules(table: &str) -> Result<Option<Rules>, Error> {
    let mut json = Vec::new();
    // One at a time: nft 1.0.6 finds only the last of several tables that it is to list.
    for family in Family::ALL {
        let list = ["-j", "-t", "list", "table", family.name(), table];
        match run("list the tables", &list, None).await {
            Ok(listed) => json.extend(listed),
            // It says "No such file or directory" where the table is not.
            Err(Error::Nft { message, .. }) if message.contains("No such file") => return Ok(None),
            Err(e) => return Err(e),
        }
    }
    Rules::parse(&json).map(Some)
}

/// Everything in the tables of others, as JSON; one document for each.
pub(crate) async fn others(table: &str) -> Result<Vec<u8>, Error> {
    let json = run("list tables", &["-j", "list", "tables"], None).await?;
    let list: Value = serde_json::from_slice(&json).map_err(|e| odd(&e))?;
    let objects = list.get("nftables").and_then(Value::as_array);
    let mut others = Vec::new();
    for object in objects.into_iter().flatten() {
        let text = |key| object.get("table")?.get(key)?.as_str();
        let (Some(family), Some(name)) = (text("family"), text("name")) else {
            continue;
        };
        let own = name == table && Family::ALL.iter().any(|f| f.name() == family);
        // Bridges' hooks see no routed packet.
        if own || family == "bridge" {
            continue;
        }
        // As JSON a name may be a word of nft's language.
        let list = json!({ "list": { "table": { "family": family, "name": name } } });
        let commands = json!({ "nftables": [list] }).to_string();
        match run("list another table", &["-j", "-f", "-"], Some(commands)).await {
            Ok(listed) => others.extend(listed),
            // It went meanwhile: the next comparison will know.
            Err(Error::Nft { message, .. }) if message.contains("No such file") => {}
            Err(e) => return Err(e),
        }
    }
    Ok(others)
}

fn odd(e: &dyn std::fmt::Display) -> Error {
    Error::Answer {
        what: "nft's listing",
        why: e.to_string().chars().take(300).collect(),
    }
}

/// A table's declarations and rules as nft lists them, without what changes by itself: handles and
/// counters. Two listings by the same nft are equal when the tables work alike.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Rules(Vec<Value>);

impl Rules {
    pub(crate) fn parse(json: &[u8]) -> Result<Self, Error> {
        let mut rules = Vec::new();
        let documents = serde_json::Deserializer::from_slice(json).into_iter::<Value>();
        for document in documents {
            let mut document = document.map_err(|e| odd(&e))?;
            let objects = document.get_mut("nftables").and_then(Value::as_array_mut);
            let objects = objects.ok_or_else(|| odd(&"there is no list of objects in it"))?;
            for mut object in std::mem::take(objects) {
                if object.get("metainfo").is_none() {
                    strip(&mut object);
                    rules.push(object);
                }
            }
        }
        if rules.is_empty() {
            return Err(odd(&"there is no object in it"));
        }
        Ok(Self(rules))
    }

    /// Whether there is a chain of this name.
    pub(crate) fn has_chain(&self, name: &str) -> bool {
        let named = |object: &Value| {
            object
                .get("chain")?
                .get("name")?
                .as_str()
                .map(|n| n == name)
        };
        self.0.iter().any(|object| named(object) == Some(true))
    }
}

#[cfg(feature = "testing")]
pub(crate) fn listing_is_stable(json: &[u8]) -> Option<bool> {
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
            r#"{"nftables": []}"#,
            r#"{"nftables": 1}"#,
            "{\"nftables\": [",
            "\u{0}",
        ] {
            assert!(
                matches!(Rules::parse(text.as_bytes()), Err(Error::Answer { .. })),
                "{text}"
            );
        }
    }
}
