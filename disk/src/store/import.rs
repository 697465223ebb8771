//! Taking a local file into the store.

use std::{
    fs::File,
    os::unix::fs::{FileExt, MetadataExt},
    path::Path,
    sync::atomic::AtomicBool,
};

use super::{
    image::{Progress, StoredImage},
    images::ImageStore,
    unpack::{Packed, Packing},
};
use crate::{
    digest::{BLOCK, Digest, Hasher},
    error::Error,
    files::{self, NewFile},
    format::Format,
    inspect::inspect_named,
    lock, space,
    units::ByteSize,
};

/// A local file to take into the store.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Import {
    /// The format it was announced with, if any; another one is refused.
    pub format: Option<Format>,
    /// The digest that the file, compressed or not, must have, if known.
    pub expected: Option<Digest>,
}

impl ImageStore {
    /// Takes a local file into the store: copies (a compressed one: unpacks), hashes and inspects it.
    /// The file itself is only read. `progress` is called after each block. A damaged image of the same content is
    /// mended.
    ///
    /// # Errors
    /// [`Error::InUse`] while a QEMU writes it; [`Error::Refused`], [`Error::DigestMismatch`], [`Error::TooLarge`], [`Error::NoSpace`];
    /// those of the file system. Nothing is stored then.
    pub fn import(
        &self,
        path: &Path,
        import: &Import,
        progress: impl FnMut(Progress),
    ) -> Result<StoredImage, Error> {
        let source = files::open_read(path).map_err(Error::into_refusal)?;
        let len = source
            .metadata()
            .map_err(Error::io("examine", path))?
            .size();
        let max = self.inner.options.max_image_size;
        if len > max.bytes() {
            let (what, size) = (path.display().to_string(), ByteSize::from_bytes(len));
            return Err(Error::TooLarge { what, size, max });
        }
        lock::refuse_writer(&source, path)?;
        let _import = self.inner.flights.import();
        match Packing::of(&source).map_err(Error::io("read", path))? {
            Some(packing) => self.import_packed(&source, packing, path, import, progress),
            None => self.import_plain(&source, len, path, import, progress),
        }
    }

    fn import_plain(
        &self,
        source: &File,
        len: u64,
        path: &Path,
        import: &Import,
        mut progress: impl FnMut(Progress),
    ) -> Result<StoredImage, Error> {
        // Look before copying: a refusal costs little.
        inspect_named(source, import.format, path)?;
        space::require(&self.tmp(), len, self.inner.options.reserve)?;
        // O_TMPFILE where it exists: a crash leaves nothing. Elsewhere sweep() removes it.
        let copy = NewFile::create(&self.tmp().join("import"))?;
        let mut hasher = Hasher::for_expected(import.expected.as_ref());
        let mut block = vec![0; BLOCK];
        let mut at = 0;
        while at < len {
            let want = BLOCK.min(usize::try_from(len - at).unwrap_or(BLOCK));
            let block = block.get_mut(..want).unwrap_or_default();
            source
                .read_exact_at(block, at)
                .map_err(Error::io("read", path))?;
            hasher.update(block);
            if block.iter().any(|&b| b != 0) {
                copy.file()
                    .write_all_at(block, at)
                    .map_err(Error::io("copy", path))?;
            }
            at += want as u64;
            progress(Progress::new(at, Some(len)));
        }
        copy.file().set_len(len).map_err(Error::io("copy", path))?;
        // Who began to write in between may have torn the copy.
        lock::refuse_writer(source, path)?;
        let digests = hasher.finish();
        Self::compare(&digests, import.expected.as_ref(), path)?;
        let image = self.approve(copy.file(), &digests, import.format, path)?;
        self.place(copy, &image)?;
        self.index(&image, &digests)?;
        Ok(image)
    }

    fn import_packed(
        &self,
        source: &File,
        packing: Packing,
        path: &Path,
        import: &Import,
        progress: impl FnMut(Progress),
    ) -> Result<StoredImage, Error> {
        let packed = Packed {
            file: source,
            packing,
            name: path,
            limits: self.limits(),
            stop: &AtomicBool::new(false),
        };
        let mut whole = Hasher::for_expected(import.expected.as_ref());
        let unpacked = packed.unpack(&self.tmp(), Some(&mut whole), progress)?;
        Self::compare(&whole.finish(), import.expected.as_ref(), path)?;
        let image = self.approve(unpacked.file.file(), &unpacked.digests, import.format, path)?;
        self.place(unpacked.file, &image)?;
        if let Some(expected) = &import.expected {
            self.link_unpacked(expected, &image.digest)?;
        }
        Ok(image)
    }
}
