//! Hashing a download while it arrives, in a thread of its own.
//!
//! The thread reads what was written from the file (from memory, as a rule) up to the water mark
//! that it is told, so that bytes may arrive in any order.

use std::{
    fs::File,
    io,
    sync::{Arc, mpsc},
};

use tokio::task::JoinHandle;

use crate::digest::{Digests, Hasher, hash_range};

/// Bytes between two looks at whether the download was cancelled.
const STEP: u64 = 16 << 20;

/// Hashes a file from its start as far as it is told. Stops soon after it is dropped.
pub(super) struct Hashing {
    marks: mpsc::Sender<Mark>,
    task: JoinHandle<io::Result<Option<Digests>>>,
}

#[derive(Clone, Copy)]
struct Mark {
    at: u64,
    last: bool,
}

impl Hashing {
    /// Starts with nothing to hash. Must be called in a Tokio runtime.
    pub(super) fn start(hasher: Hasher, file: Arc<File>) -> Self {
        let (marks, receiver) = mpsc::channel();
        let task = tokio::task::spawn_blocking(move || run(hasher, &file, &receiver));
        Hashing { marks, task }
    }

    /// All bytes before `at` are written.
    pub(super) fn advance(&self, at: u64) {
        // The thread ends early only on an error, which finish() reports.
        let _ = self.marks.send(Mark { at, last: false });
    }

    /// The digests of the file's first `len` bytes, all of which are written.
    pub(super) async fn finish(self, len: u64) -> io::Result<Digests> {
        let _ = self.marks.send(Mark {
            at: len,
            last: true,
        });
        match self.task.await {
            Ok(Ok(Some(digests))) => Ok(digests),
            Ok(Ok(None)) => Err(io::Error::other("hashing was cancelled")),
            Ok(Err(error)) => Err(error),
            Err(error) => Err(io::Error::other(error)),
        }
    }
}

/// `None` when the other end is gone before the last mark.
fn run(
    mut hasher: Hasher,
    file: &File,
    marks: &mpsc::Receiver<Mark>,
) -> io::Result<Option<Digests>> {
    let mut done = 0;
    let mut goal = Mark { at: 0, last: false };
    loop {
        while !goal.last {
            match marks.try_recv() {
                Ok(mark) => goal = mark,
                Err(mpsc::TryRecvError::Empty) if done < goal.at => break,
                Err(mpsc::TryRecvError::Empty) => match marks.recv() {
                    Ok(mark) => goal = mark,
                    Err(mpsc::RecvError) => return Ok(None),
                },
                Err(mpsc::TryRecvError::Disconnected) => return Ok(None),
            }
        }
        let to = goal.at.min(done + STEP);
        if done < to {
            hash_range(&mut hasher, file, done, to, |_| ())?;
            done = to;
        } else if goal.last {
            return Ok(Some(hasher.finish()));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt;

    use super::*;
    use crate::digest::Sha256;

    #[tokio::test]
    async fn marks_in_any_rhythm_give_the_digest() {
        let bytes: Vec<u8> = (0..3_000_000_u32).flat_map(u32::to_le_bytes).collect();
        let file = Arc::new(tempfile::tempfile().unwrap());
        file.write_all_at(&bytes, 0).unwrap();
        let len = bytes.len() as u64;
        for marks in [vec![], vec![0, 1, 1, 5_000_000], vec![len, len]] {
            let hashing = Hashing::start(Hasher::for_expected(None), file.clone());
            for mark in marks {
                hashing.advance(mark);
            }
            assert_eq!(
                hashing.finish(len).await.unwrap().sha256,
                Sha256::of(&bytes)
            );
        }
        let hashing = Hashing::start(Hasher::for_expected(None), file.clone());
        assert!(hashing.finish(len + 1).await.is_err());
    }

    #[tokio::test]
    async fn dropping_it_lets_go_of_the_file() {
        let file = Arc::new(tempfile::tempfile().unwrap());
        file.set_len(1 << 30).unwrap();
        let hashing = Hashing::start(Hasher::for_expected(None), file.clone());
        hashing.advance(1 << 30);
        drop(hashing);
        tokio::time::timeout(std::time::Duration::from_secs(20), async {
            while Arc::strong_count(&file) > 1 {
                tokio::time::sleep(std::time::Duration::from_millis(5)).await;
            }
        })
        .await
        .unwrap();
    }
}
