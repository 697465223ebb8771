//! Asking a program something: bounded in time and output.

use std::{path::Path, process::Stdio, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    process::Command,
};

/// Largest answer that is read, bytes; the rest is cut off.
const LARGEST: u64 = 256 << 10;

/// What a program answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// It ended with status 0.
    pub ok: bool,
    /// Its standard output.
    pub output: String,
    /// Its standard error.
    pub errors: String,
}

/// Why a program gave no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RunError {
    /// There is no such program.
    #[error("{0} is not installed")]
    NotFound(String),
    /// It cannot be started or read from.
    #[error("{0} cannot be run: {1}")]
    Failed(String, String),
    /// It did not end; it was killed.
    #[error("{0} gave no answer within {1:?}")]
    TooSlow(String, Duration),
}

/// Runs a program without input and in the C locale, and reads what it says.
///
/// # Errors
/// [`RunError`]. A status other than 0 is an answer.
pub async fn ask(program: &Path, args: &[&str], limit: Duration) -> Result<Answer, RunError> {
    converse(program, args, "", limit).await
}

/// [`ask`] with an input, which stays open until the program has said all.
///
/// # Errors
/// As [`ask`].
pub async fn converse(
    program: &Path,
    args: &[&str],
    input: &str,
    limit: Duration,
) -> Result<Answer, RunError> {
    let name = || program.display().to_string();
    let failed = |e: std::io::Error| match e.kind() {
        std::io::ErrorKind::NotFound => RunError::NotFound(name()),
        _ => RunError::Failed(name(), e.to_string()),
    };
    let mut child = Command::new(program)
        .args(args)
        .env("LC_ALL", "C")
        .stdin(match input {
            "" => Stdio::null(),
            _ => Stdio::piped(),
        })
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(failed)?;
    let (out, err) = (child.stdout.take(), child.stderr.take());
    let mut to = child.stdin.take();
    let talk = async {
        if let Some(to) = &mut to {
            // One that does not listen says so by its end.
            let _ = to.write_all(input.as_bytes()).await;
        }
        let (output, errors) = tokio::try_join!(read(out), read(err))?;
        drop(to);
        Ok((child.wait().await?, output, errors))
    };
    match tokio::time::timeout(limit, talk).await {
        Err(_) => Err(RunError::TooSlow(name(), limit)),
        Ok(Err(e)) => Err(failed(e)),
        Ok(Ok((status, output, errors))) => Ok(Answer {
            ok: status.success(),
            output,
            errors,
        }),
    }
}

async fn read(from: Option<impl tokio::io::AsyncRead + Unpin>) -> std::io::Result<String> {
    let mut bytes = Vec::new();
    if let Some(mut from) = from {
        (&mut from).take(LARGEST).read_to_end(&mut bytes).await?;
        // The program may go on talking; nobody listens.
        tokio::io::copy(&mut from, &mut tokio::io::sink()).await?;
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[tokio::test]
    async fn answers_failures_silence_and_floods() {
        let sh = Path::new("/bin/sh");
        let answer = ask(sh, &["-c", "echo yes; echo no >&2; exit 3"], SECOND)
            .await
            .unwrap();
        assert_eq!(
            answer,
            Answer {
                ok: false,
                output: "yes\n".into(),
                errors: "no\n".into()
            }
        );
        // The input is open while it speaks: `cat` alone would not end.
        let said = converse(sh, &["-c", "read a; read b; echo $b"], "1\n2\n", SECOND).await;
        assert_eq!(said.unwrap().output, "2\n");
        let slow = ask(sh, &["-c", "sleep 5"], Duration::from_millis(50)).await;
        assert!(matches!(slow, Err(RunError::TooSlow(..))));
        let endless = ask(Path::new("/usr/bin/yes"), &[], Duration::from_millis(100)).await;
        assert!(matches!(endless, Err(RunError::TooSlow(..))));
        let flood = ask(sh, &["-c", "head -c 3000000 /dev/zero"], 5 * SECOND)
            .await
            .unwrap();
        assert_eq!(flood.output.len() as u64, LARGEST);
        let none = ask(Path::new("/nonexistent/program"), &[], SECOND).await;
        assert!(matches!(none, Err(RunError::NotFound(_))));
        let no_program = ask(Path::new("/etc"), &[], SECOND).await;
        assert!(matches!(no_program, Err(RunError::Failed(..))));
    }
}
