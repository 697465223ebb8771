//! What `qcow2-rs` makes of an image:
//!
//! - `check IMAGE`: exit status 0 if its check passes;
//! - `read IMAGE AT LEN`: these bytes of the guest's disk to standard output, through all backing
//!   files;
//! - `header FILE`: exit status 0 if it takes the header, 1 if it refuses it, 101 if it panics.

use std::{env, error::Error, fs, io::Write as _, path::Path, process::ExitCode};

use qcow2_rs::{
    dev::Qcow2DevParams, helpers::Qcow2IoBuf, meta::Qcow2Header, qcow2_default_params,
    utils::qcow2_setup_dev_tokio,
};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<ExitCode, Box<dyn Error>> {
    let words: Vec<String> = env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let params = qcow2_default_params!(true, false);
    let fine = match words[..] {
        ["check", image] => {
            let dev = qcow2_setup_dev_tokio(Path::new(image), &params).await?;
            dev.check().await.is_ok()
        }
        ["read", image, at, len] => {
            let dev = qcow2_setup_dev_tokio(Path::new(image), &params).await?;
            let mut buffer = Qcow2IoBuf::<u8>::new(len.parse()?);
            dev.read_at(&mut buffer, at.parse()?).await?;
            std::io::stdout().write_all(&buffer)?;
            true
        }
        ["header", file] => Qcow2Header::from_buf(&fs::read(file)?).is_ok(),
        _ => return Err("usage: check IMAGE | read IMAGE AT LEN | header FILE".into()),
    };
    Ok(if fine {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}
