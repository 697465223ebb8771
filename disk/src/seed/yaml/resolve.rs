//! What plain scalars mean in YAML 1.1, and which of them the guest's reader cannot make.

/// What a plain scalar is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scalar {
    Text,
    Null,
    Bool(bool),
    Number,
    Timestamp,
    /// `<<`.
    Merge,
    /// `=`, which is a text as a key and nothing as a value.
    Value,
    /// `!`, `&` or `*` alone, which can only be meant by a tag.
    Reserved,
}

/// What a plain scalar is.
pub(super) fn resolve(text: &str) -> Scalar {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => Scalar::Null,
        "yes" | "Yes" | "YES" | "true" | "True" | "TRUE" | "on" | "On" | "ON" => Scalar::Bool(true),
        "no" | "No" | "NO" | "false" | "False" | "FALSE" | "off" | "Off" | "OFF" => {
            Scalar::Bool(false)
        }
        "<<" => Scalar::Merge,
        "=" => Scalar::Value,
        "!" | "&" | "*" => Scalar::Reserved,
        _ if !text.starts_with(|c: char| c.is_ascii_digit() || "+-.".contains(c)) => Scalar::Text,
        _ if is_float(text) || is_int(text) => Scalar::Number,
        _ if is_timestamp(text) => Scalar::Timestamp,
        _ => Scalar::Text,
    }
}

fn digits(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit())
}

/// A digit, then digits and underscores.
fn number(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_digit())
        && text.bytes().all(|b| b.is_ascii_digit() || b == b'_')
}

fn unsigned(text: &str) -> &str {
    text.strip_prefix(['+', '-']).unwrap_or(text)
}

/// Numbers of base 60: parts of one or two digits below 60 after the first.
fn sexagesimal<'a>(mut parts: impl Iterator<Item = &'a str>) -> bool {
    parts.all(|part| digits(part) && (part.len() == 1 || part.len() == 2 && part < "60"))
}

fn is_int(text: &str) -> bool {
    let text = unsigned(text);
    let of = |rest: &str, set: &str| !rest.is_empty() && rest.chars().all(|c| set.contains(c));
    if let Some(rest) = text.strip_prefix("0b") {
        return of(rest, "01_");
    }
    if let Some(rest) = text.strip_prefix("0x") {
        return of(rest, "0123456789abcdefABCDEF_");
    }
    if text == "0" {
        return true;
    }
    if let Some(rest) = text.strip_prefix('0') {
        return of(rest, "01234567_");
    }
    match text.split_once(':') {
        None => number(text),
        Some((first, rest)) => number(first) && sexagesimal(rest.split(':')),
    }
}

fn is_float(text: &str) -> bool {
    let bare = unsigned(text);
    if matches!(bare, ".inf" | ".Inf" | ".INF") || matches!(text, ".nan" | ".NaN" | ".NAN") {
        return true;
    }
    let Some((whole, rest)) = bare.split_once('.') else {
        return false;
    };
    if let Some((first, sixties)) = whole.split_once(':') {
        let fraction = rest.bytes().all(|b| b.is_ascii_digit() || b == b'_');
        return number(first) && sexagesimal(sixties.split(':')) && fraction;
    }
    let (fraction, exponent) = match rest.split_once(['e', 'E']) {
        None => (rest, true),
        Some((fraction, exponent)) => {
            let signed = exponent.strip_prefix(['+', '-']);
            (fraction, signed.is_some_and(digits))
        }
    };
    exponent
        && match whole {
            // No sign here.
            "" => bare.len() == text.len() && number(fraction),
            whole => number(whole) && fraction.bytes().all(|b| b.is_ascii_digit() || b == b'_'),
        }
}

fn is_timestamp(text: &str) -> bool {
    timestamp(text).is_some_and(|t| t.time.is_some() || t.whole_days)
}

/// A date, or date and time, of YAML 1.1.
struct Timestamp {
    date: [u32; 3],
    /// Month and day have two digits each, as a date without a time must.
    whole_days: bool,
    time: Option<[u32; 3]>,
    /// Hours and minutes.
    zone: Option<[u32; 2]>,
}

/// Takes `least` to `most` digits from the front.
fn take(text: &mut &str, least: usize, most: usize) -> Option<u32> {
    let n = text
        .bytes()
        .take(most)
        .take_while(u8::is_ascii_digit)
        .count();
    let (number, rest) = text.split_at_checked(n)?;
    *text = rest;
    (n >= least).then(|| number.parse().ok())?
}

fn timestamp(mut rest: &str) -> Option<Timestamp> {
    let text = &mut rest;
    let year = take(text, 4, 4)?;
    *text = text.strip_prefix('-')?;
    let month_at = text.len();
    let month = take(text, 1, 2)?;
    let month_end = text.len();
    *text = text.strip_prefix('-')?;
    let day_at = text.len();
    let day = take(text, 1, 2)?;
    let whole_days = month_at - month_end == 2 && day_at - text.len() == 2;
    let mut found = Timestamp {
        date: [year, month, day],
        whole_days,
        time: None,
        zone: None,
    };
    if text.is_empty() {
        return Some(found);
    }
    let blanks = |text: &mut &str| *text = text.trim_start_matches([' ', '\t']);
    match text.strip_prefix(['T', 't']) {
        Some(after) => *text = after,
        None if text.starts_with([' ', '\t']) => blanks(text),
        None => return None,
    }
    let hour = take(text, 1, 2)?;
    *text = text.strip_prefix(':')?;
    let minute = take(text, 2, 2)?;
    *text = text.strip_prefix(':')?;
    let second = take(text, 2, 2)?;
    found.time = Some([hour, minute, second]);
    if let Some(fraction) = text.strip_prefix('.') {
        *text = fraction.trim_start_matches(|c: char| c.is_ascii_digit());
    }
    if text.is_empty() {
        return Some(found);
    }
    blanks(text);
    if *text == "Z" {
        return Some(found);
    }
    *text = text.strip_prefix(['+', '-'])?;
    let hours = take(text, 1, 2)?;
    let minutes = match text.strip_prefix(':') {
        Some(after) => {
            *text = after;
            take(text, 2, 2)?
        }
        None => 0,
    };
    found.zone = Some([hours, minutes]);
    text.is_empty().then_some(found)
}

/// Refuses a date that is in no calendar.
fn check_timestamp(text: &str) -> Result<(), String> {
    let odd = || format!("{text:?} looks like a date and is none; put it in quotes");
    let Timestamp {
        date, time, zone, ..
    } = timestamp(text).ok_or_else(odd)?;
    let [year, month, day] = date;
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let days = match month {
        2 => 28 + u32::from(leap),
        4 | 6 | 9 | 11 => 30,
        1..=12 => 31,
        _ => 0,
    };
    let good_date = year > 0 && (1..=days).contains(&day);
    let good_time = time.is_none_or(|[h, m, s]| h < 24 && m < 60 && s < 60);
    let good_zone = zone.is_none_or(|[h, m]| h * 60 + m < 24 * 60);
    if good_date && good_time && good_zone {
        Ok(())
    } else {
        Err(odd())
    }
}

/// Most digits of a decimal number that Python reads.
const MAX_DIGITS: usize = 4300;

fn check_number(text: &str) -> Result<(), String> {
    let bare: String = unsigned(text).chars().filter(|&c| c != '_').collect();
    if matches!(bare.as_str(), "0x" | "0b" | "") {
        return Err(format!(
            "{text:?} looks like a number and is none; put it in quotes"
        ));
    }
    let decimal = !bare.starts_with('0') && !bare.contains('.');
    if decimal && bare.split(':').any(|part| part.len() > MAX_DIGITS) {
        return Err(format!(
            "a number of more than {MAX_DIGITS} digits; put it in quotes"
        ));
    }
    Ok(())
}

/// Refuses a plain scalar of which the guest's reader could not make a value.
pub(super) fn check_plain(text: &str) -> Result<(), String> {
    match resolve(text) {
        Scalar::Text | Scalar::Null | Scalar::Bool(_) => Ok(()),
        Scalar::Number => check_number(text),
        Scalar::Timestamp => check_timestamp(text),
        Scalar::Merge | Scalar::Value | Scalar::Reserved => Err(format!(
            "{text} alone has a meaning of its own here; put it in quotes"
        )),
    }
}

/// Refuses a scalar of which the guest's reader could not make a value of the type that its tag
/// (of `tag:yaml.org,2002:`) names.
pub(super) fn check_tagged(kind: &str, text: &str) -> Result<(), String> {
    let bare = text.replace('_', "");
    let bare = unsigned(bare.trim());
    let good = match kind {
        "str" | "null" | "python/unicode" => true,
        "bool" => matches!(
            text.to_ascii_lowercase().as_str(),
            "yes" | "no" | "true" | "false" | "on" | "off"
        ),
        "int" => (is_int(text) || digits(bare)) && check_number(text).is_ok(),
        "float" => {
            matches!(bare.to_ascii_lowercase().as_str(), ".inf" | ".nan")
                || bare.split(':').all(|part| part.parse::<f64>().is_ok())
        }
        "binary" => is_base64(text),
        "timestamp" => check_timestamp(text).is_ok(),
        _ => return Err(format!("{text:?} cannot be of type !!{kind}")),
    };
    if good {
        Ok(())
    } else {
        Err(format!("{text:?} is not of type !!{kind}"))
    }
}

/// As Python's decoder, which skips what it does not know and insists on the end.
fn is_base64(text: &str) -> bool {
    let (mut quad, mut pads) = (0, 0);
    for byte in text.bytes() {
        match byte {
            b'=' if quad >= 2 => {
                pads += 1;
                if quad + pads >= 4 {
                    return text.is_ascii();
                }
            }
            b if b.is_ascii_alphanumeric() || b == b'+' || b == b'/' => {
                pads = 0;
                quad = (quad + 1) % 4;
            }
            _ => {}
        }
    }
    text.is_ascii() && quad == 0
}
