//! Lines out of a byte stream, in bounded memory.
//!
//! Invariant: the buffer never holds more than `max` bytes plus one read's worth, and after a long
//! line its memory is given back.

use std::io;

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncReadExt};

/// Bytes asked from the socket at a time.
const READ_CHUNK: usize = 8 << 10;

/// A line passed the limit.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct TooLong;

/// Bytes read and not yet taken as lines.
#[derive(Debug)]
pub(crate) struct LineBuffer {
    buf: BytesMut,
    /// The first `scanned` bytes hold no line end.
    scanned: usize,
    max: usize,
}

impl LineBuffer {
    /// A buffer for lines of at most `max` bytes.
    pub(crate) fn new(max: usize) -> Self {
        Self {
            buf: BytesMut::new(),
            scanned: 0,
            max,
        }
    }

    /// Changes the limit for lines not yet taken.
    pub(crate) fn set_max(&mut self, max: usize) {
        self.max = max;
    }

    /// The limit.
    pub(crate) fn max(&self) -> usize {
        self.max
    }

    /// Whether nothing is waiting.
    pub(crate) fn is_empty(&self) -> bool {
        self.buf.is_empty()
    }

    /// Adds bytes, as `fill` does.
    pub(crate) fn extend(&mut self, bytes: &[u8]) {
        self.buf.extend_from_slice(bytes);
    }

    /// Reads once. Safe to cancel. `0` is the end of the stream.
    pub(crate) async fn fill<R: AsyncRead + Unpin>(&mut self, reader: &mut R) -> io::Result<usize> {
        self.buf.reserve(READ_CHUNK);
        reader.read_buf(&mut self.buf).await
    }

    /// The next whole line without its end, if there is one.
    pub(crate) fn take_line(&mut self) -> Result<Option<BytesMut>, TooLong> {
        let unseen = self.buf.get(self.scanned..).unwrap_or_default();
        let Some(at) = unseen.iter().position(|&b| b == b'\n') else {
            self.scanned = self.buf.len();
            // One more for the carriage return that QEMU puts before the line feed.
            return if self.buf.len() > self.max.saturating_add(1) {
                Err(TooLong)
            } else {
                Ok(None)
            };
        };
        let end = self.scanned + at;
        self.scanned = 0;
        let mut line = self.buf.split_to(end + 1);
        line.truncate(end);
        if line.last() == Some(&b'\r') {
            line.truncate(end - 1);
        }
        if self.buf.is_empty() && line.capacity() > 8 * READ_CHUNK {
            self.buf = BytesMut::new();
        }
        if line.len() > self.max {
            Err(TooLong)
        } else {
            Ok(Some(line))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn lines(max: usize, chunks: &[&[u8]]) -> (Vec<Vec<u8>>, bool) {
        let mut buffer = LineBuffer::new(max);
        let mut out = Vec::new();
        for chunk in chunks {
            buffer.extend(chunk);
            loop {
                match buffer.take_line() {
                    Ok(Some(line)) => out.push(line.to_vec()),
                    Ok(None) => break,
                    Err(TooLong) => return (out, true),
                }
            }
        }
        (out, false)
    }

    #[test]
    fn limits_are_exact() {
        assert_eq!(lines(3, &[b"abc\r\n"]), (vec![b"abc".to_vec()], false));
        assert_eq!(lines(3, &[b"abc\n"]), (vec![b"abc".to_vec()], false));
        assert_eq!(lines(3, &[b"abcd\n"]), (vec![], true));
        assert_eq!(lines(3, &[b"abc", b"de"]), (vec![], true));
        assert_eq!(lines(3, &[b"\n\r\n\n"]), (vec![vec![]; 3], false));
    }

    #[test]
    fn a_long_line_gives_its_memory_back() {
        let mut buffer = LineBuffer::new(4 << 20);
        buffer.extend(&vec![b'x'; 4 << 20]);
        buffer.extend(b"\n");
        drop(buffer.take_line().unwrap().unwrap());
        assert!(buffer.buf.capacity() < 1 << 20);
    }

    proptest! {
        #[test]
        fn cutting_the_stream_anywhere_changes_nothing(
            data in proptest::collection::vec(prop_oneof![Just(b'\n'), Just(b'a'), any::<u8>()], 0..200),
            cuts in proptest::collection::vec(0usize..200, 0..10),
        ) {
            let whole = lines(1000, &[&data]);
            let mut cuts: Vec<_> = cuts.into_iter().map(|c| c.min(data.len())).collect();
            cuts.extend([0, data.len()]);
            cuts.sort_unstable();
            let parts: Vec<&[u8]> = cuts.windows(2).map(|w| &data[w[0]..w[1]]).collect();
            prop_assert_eq!(lines(1000, &parts), whole);
        }
    }
}
