//! Compressed images: recognised by how they begin, unpacked under limits.
//!
//! What is stored is the content. All decoders are Rust, and each keeps to a limit of memory.

use std::{
    cell::Cell,
    fs::File,
    io::{self, BufRead, BufReader, Read},
    os::unix::fs::FileExt,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use bzip2::bufread::MultiBzDecoder;
use flate2::bufread::MultiGzDecoder;
use lzma_rust2::XzReader;
use ruzstd::decoding::{
    BlockDecodingStrategy, FrameDecoder,
    errors::{FrameDecoderError, ReadFrameHeaderError},
};

use super::{
    image::Progress,
    transfer::{Limits, SPACE_STEP},
};
use crate::{
    digest::{BLOCK, Digests, Hasher},
    error::{Error, Flaw},
    files::NewFile,
    space,
    units::ByteSize,
};

/// Most memory for what a decoder must remember, bytes: `xz -9` needs 65 MiB, `zstd --long` 128 MiB.
const MEMORY: u64 = 160 << 20;

/// How a file is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Packing {
    Gzip,
    Xz,
    Bzip2,
    Zstd,
}

impl Packing {
    /// By a file's first bytes. No disk begins so.
    fn by_magic(start: &[u8]) -> Option<Self> {
        match start {
            [0x1f, 0x8b, 8, ..] => Some(Packing::Gzip),
            [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Some(Packing::Xz),
            [b'B', b'Z', b'h', b'1'..=b'9', ..] => Some(Packing::Bzip2),
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Some(Packing::Zstd),
            _ => None,
        }
    }

    /// How a file is compressed, if it is.
    pub(super) fn of(file: &File) -> io::Result<Option<Self>> {
        let mut start = [0; 8];
        let mut read = 0;
        while let Some(rest) = start.get_mut(read..).filter(|rest| !rest.is_empty()) {
            match file.read_at(rest, read as u64)? {
                0 => break,
                n => read += n,
            }
        }
        Ok(Self::by_magic(start.get(..read).unwrap_or_default()))
    }

    fn name(self) -> &'static str {
        match self {
            Packing::Gzip => "gzip",
            Packing::Xz => "xz",
            Packing::Bzip2 => "bzip2",
            Packing::Zstd => "zstd",
        }
    }

    fn decoder<'a>(self, packed: impl BufRead + 'a) -> Box<dyn Read + 'a> {
        match self {
            Packing::Gzip => Box::new(MultiGzDecoder::new(packed)),
            Packing::Bzip2 => Box::new(MultiBzDecoder::new(packed)),
            Packing::Xz => {
                let kib = u32::try_from(MEMORY >> 10).unwrap_or(u32::MAX);
                Box::new(XzReader::new_mem_limit(packed, true, kib))
            }
            Packing::Zstd => Box::new(Zstd::new(packed)),
        }
    }
}

/// Tells work in another thread to stop when it is dropped.
#[derive(Debug, Default)]
pub(super) struct Stop(Arc<AtomicBool>);

impl Stop {
    pub(super) fn flag(&self) -> Arc<AtomicBool> {
        self.0.clone()
    }
}

impl Drop for Stop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// The content of a compressed file.
pub(super) struct Unpacked {
    pub(super) file: NewFile,
    pub(super) digests: Digests,
}

/// A compressed file to unpack.
pub(super) struct Packed<'a> {
    pub(super) file: &'a File,
    pub(super) packing: Packing,
    /// For errors.
    pub(super) name: &'a Path,
    pub(super) limits: Limits,
    /// Set when nobody wants it any more.
    pub(super) stop: &'a AtomicBool,
}

impl Packed<'_> {
    /// Unpacks it into a new file in `dir`, with holes where there are zeros. `whole` is told all
    /// bytes of the compressed file, `progress` how many there were.
    pub(super) fn unpack(
        &self,
        dir: &Path,
        whole: Option<&mut Hasher>,
        mut progress: impl FnMut(Progress),
    ) -> Result<Unpacked, Error> {
        let total = self
            .file
            .metadata()
            .map_err(Error::io("examine", self.name))?
            .len();
        let at = Cell::new(0);
        let mut packed = BufReader::with_capacity(
            BLOCK,
            Sequential {
                file: self.file,
                at: &at,
                stop: self.stop,
                whole,
            },
        );
        let mut content = self.packing.decoder(&mut packed);
        let new = NewFile::create(&dir.join("unpacked"))?;
        let mut hasher = Hasher::for_expected(None);
        let mut block = vec![0; BLOCK];
        let (mut len, mut written, mut space_at) = (0, 0, 0);
        loop {
            let n = fill(&mut content, &mut block).map_err(|e| self.failed(&e))?;
            let block = block.get(..n).unwrap_or_default();
            if block.is_empty() {
                break;
            }
            if len + n as u64 > self.limits.max.bytes() {
                return Err(Error::TooLarge {
                    what: format!("{}, unpacked,", self.name.display()),
                    size: ByteSize::from_bytes(len + n as u64),
                    max: self.limits.max,
                });
            }
            hasher.update(block);
            if block.iter().any(|&b| b != 0) {
                if written >= space_at {
                    space::require(dir, SPACE_STEP, self.limits.reserve)?;
                    space_at = written + SPACE_STEP;
                }
                new.file()
                    .write_all_at(block, len)
                    .map_err(Error::io("unpack", self.name))?;
                written += n as u64;
            }
            len += n as u64;
            progress(Progress::new(at.get(), Some(total)));
        }
        new.file()
            .set_len(len)
            .map_err(Error::io("unpack", self.name))?;
        drop(content);
        // A decoder may be content before the end; the digest is about all of it.
        io::copy(&mut packed, &mut io::sink()).map_err(|e| self.failed(&e))?;
        Ok(Unpacked {
            file: new,
            digests: hasher.finish(),
        })
    }

    fn failed(&self, error: &io::Error) -> Error {
        let image = self.name.display().to_string();
        if self.stop.load(Ordering::Relaxed) {
            return Error::Interrupted { url: image };
        }
        let flaw = Flaw::Packed {
            how: self.packing.name(),
            why: error.to_string(),
        };
        Error::Refused { image, flaw }
    }
}

/// Fills the block as far as the content goes.
fn fill(content: &mut impl Read, block: &mut [u8]) -> io::Result<usize> {
    let mut n = 0;
    while let Some(rest) = block.get_mut(n..).filter(|rest| !rest.is_empty()) {
        match content.read(rest) {
            Ok(0) => break,
            Ok(more) => n += more,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(n)
}

/// A file from its start, whatever its position.
struct Sequential<'a> {
    file: &'a File,
    at: &'a Cell<u64>,
    stop: &'a AtomicBool,
    whole: Option<&'a mut Hasher>,
}

impl Read for Sequential<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.stop.load(Ordering::Relaxed) {
            return Err(io::Error::other("nobody waits for it any more"));
        }
        let n = self.file.read_at(buffer, self.at.get())?;
        self.at.set(self.at.get() + n as u64);
        if let (Some(whole), Some(read)) = (&mut self.whole, buffer.get(..n)) {
            whole.update(read);
        }
        Ok(n)
    }
}

/// Zstandard: any number of frames, each with its checksum compared.
struct Zstd<R> {
    packed: R,
    frame: FrameDecoder,
    inside: bool,
}

impl<R: BufRead> Zstd<R> {
    fn new(packed: R) -> Self {
        let mut frame = FrameDecoder::new();
        frame.set_max_window_size(MEMORY);
        Zstd {
            packed,
            frame,
            inside: false,
        }
    }

    /// Begins the next frame, past those that are to be skipped; `false` at the end of the file.
    fn begin(&mut self) -> io::Result<bool> {
        while !self.packed.fill_buf()?.is_empty() {
            match self.frame.reset(&mut self.packed) {
                Ok(()) => return Ok(true),
                Err(FrameDecoderError::ReadFrameHeaderError(ReadFrameHeaderError::SkipFrame {
                    length,
                    ..
                })) => {
                    let length = u64::from(length);
                    let skipped = io::copy(&mut (&mut self.packed).take(length), &mut io::sink())?;
                    if skipped < length {
                        return Err(io::ErrorKind::UnexpectedEof.into());
                    }
                }
                Err(e) => return Err(io::Error::other(e)),
            }
        }
        Ok(false)
    }
}

impl<R: BufRead> Read for Zstd<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            if self.inside {
                if self.frame.can_collect() > 0 {
                    return Read::read(&mut self.frame, buffer);
                }
                if self.frame.is_finished() {
                    let found = self.frame.get_calculated_checksum();
                    if self
                        .frame
                        .get_checksum_from_data()
                        .is_some_and(|sum| Some(sum) != found)
                    {
                        return Err(io::Error::other("a checksum does not fit"));
                    }
                    self.inside = false;
                } else {
                    let step = BlockDecodingStrategy::UptoBytes(BLOCK);
                    self.frame
                        .decode_blocks(&mut self.packed, step)
                        .map_err(io::Error::other)?;
                }
            } else if self.begin()? {
                self.inside = true;
            } else {
                return Ok(0);
            }
        }
    }
}
